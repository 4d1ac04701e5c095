import { z } from 'zod';
import { isDeviceName, isKind } from './name.ts';

/**
 * The Container Device Interface's files, of all versions to 1.0. Unknown members are errors, as with the
 * reference implementation: one that is overlooked would be an edit that is not made.
 */

const absolute = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path');
const variable = z.string().regex(/^[^=\0]+=[^\0]*$/, 'must be like NAME=value');
const text = z.string().regex(/^[^\0]*$/, 'must not contain NUL bytes');
const id = z.int().min(0).max(0xffff_fffe);
const number = z.int().min(0).max(0xffff_ffff);
const annotations = z.record(z.string(), z.string()).optional();

const deviceNode = z.strictObject({
  path: absolute,
  hostPath: absolute.optional(),
  type: z.enum(['b', 'c', 'u', 'p']).optional(),
  major: number.optional(),
  minor: number.optional(),
  fileMode: z.int().min(0).max(0o7777).optional(),
  permissions: z
    .string()
    .regex(/^[rwm]{0,3}$/, 'must be letters of "rwm"')
    .optional(),
  uid: id.optional(),
  gid: id.optional(),
});

const mount = z.strictObject({
  hostPath: text.min(1),
  containerPath: absolute,
  options: z.array(text).optional(),
  type: text.optional(),
});

const hook = z.strictObject({
  hookName: z.enum([
    'prestart',
    'createRuntime',
    'createContainer',
    'startContainer',
    'poststart',
    'poststop',
  ]),
  path: absolute,
  args: z.array(text).optional(),
  env: z.array(variable).optional(),
  timeout: z.int().min(1).optional(),
});

const intelRdt = z.strictObject({
  closID: z
    .string()
    .regex(/^(?!\.\.?$)[^/\n\0]{0,4095}$/, 'must be a file name')
    .optional(),
  l3CacheSchema: text.optional(),
  memBwSchema: text.optional(),
  enableCMT: z.boolean().optional(),
  enableMBM: z.boolean().optional(),
});

const edits = z.strictObject({
  env: z.array(variable).optional(),
  deviceNodes: z.array(deviceNode).optional(),
  mounts: z.array(mount).optional(),
  hooks: z.array(hook).optional(),
  intelRdt: intelRdt.optional(),
  additionalGids: z.array(id).optional(),
});

export const cdiSchema = z.strictObject({
  cdiVersion: z.string().regex(/^v?[01]\.\d+\.\d+$/, 'must be a version up to 1.x, such as 0.8.0'),
  kind: z.string().refine(isKind, 'must be like vendor.com/class'),
  annotations,
  devices: z
    .array(
      z.strictObject({
        name: z.string().refine(isDeviceName, 'must be letters, digits and _.:- between them'),
        annotations,
        containerEdits: edits,
      }),
    )
    .min(1)
    .refine((list) => new Set(list.map(({ name }) => name)).size === list.length, 'has a name twice'),
  containerEdits: edits.optional(),
});

/** A file of the Container Device Interface. */
export type CdiSpec = z.infer<typeof cdiSchema>;
/** What is done to a container's OCI spec. */
export type CdiEdits = z.infer<typeof edits>;
export type CdiDeviceNode = z.infer<typeof deviceNode>;

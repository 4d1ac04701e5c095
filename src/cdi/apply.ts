import { lstat } from 'node:fs/promises';
import { invalid, messageOf } from '../errors.ts';
import { deviceOf } from '../spec/devices.ts';
import type { Spec, SpecDevice, SpecHook, SpecMount } from '../spec/types.ts';
import type { CdiDeviceNode, CdiEdits } from './schema.ts';

const FIELD = 'config.CDI_devices';

/**
 * Makes the edits of CDI devices to a spec, in order; a later one replaces an earlier one of the same variable,
 * device path or mount point, and those of the request.
 *
 * @throws BerthError `invalid`: the host does not have a device file as the edits say
 */
export async function applyCdiEdits(
  spec: Spec,
  edits: readonly CdiEdits[],
  privileged: boolean,
): Promise<Spec> {
  let result = spec;
  for (const edit of edits) result = await applyOne(result, edit, privileged);
  return result;
}

async function applyOne(spec: Spec, edit: CdiEdits, privileged: boolean): Promise<Spec> {
  const { process, linux } = spec;
  const nodes = await Promise.all((edit.deviceNodes ?? []).map((node) => resolveNode(node, spec)));
  const paths = new Set(nodes.map(({ device }) => device.path));
  const rules = nodes.map(({ device: { type, major, minor }, permissions }) => {
    return { allow: true, type, major, minor, access: permissions };
  });
  const devices = [
    ...(linux.devices ?? []).filter(({ path }) => !paths.has(path)),
    ...nodes.map((n) => n.device),
  ];
  return {
    ...spec,
    process: {
      ...process,
      env: mergeEnv(process.env, edit.env ?? []),
      user: {
        ...process.user,
        additionalGids: addGroups(process.user.additionalGids, edit.additionalGids ?? []),
      },
    },
    mounts: mergeMounts(spec.mounts, (edit.mounts ?? []).map(specMount)),
    hooks: mergeHooks(spec.hooks ?? {}, edit.hooks ?? []),
    linux: {
      ...linux,
      ...(devices.length > 0 ? { devices } : {}),
      // A privileged container may use any device already. There is no rule for pipes.
      resources: {
        ...linux.resources,
        devices: [
          ...linux.resources.devices,
          ...(privileged ? [] : rules.filter(({ type }) => type !== 'p')),
        ],
      },
      ...(edit.intelRdt === undefined ? {} : { intelRdt: edit.intelRdt }),
    },
  };
}

/** What the edits leave out is the host's; the owner, that of the process, which is to use it. */
async function resolveNode(
  node: CdiDeviceNode,
  { process }: Spec,
): Promise<{ device: SpecDevice; permissions: string }> {
  const hostPath = node.hostPath ?? node.path;
  const numbered = node.major !== undefined && node.minor !== undefined && node.major > 0;
  const host =
    node.type !== undefined && (numbered || node.type === 'p') ? undefined : await onHost(hostPath);
  const type = node.type === 'u' ? 'c' : (node.type ?? host?.type);
  if (type === undefined || (host !== undefined && host.type !== type)) {
    throw invalid(FIELD, `${hostPath} is no device file of type "${node.type ?? 'b or c'}"`);
  }
  const device: SpecDevice = {
    path: node.path,
    type,
    major: (numbered ? node.major : host?.major) ?? 0,
    minor: (numbered ? node.minor : host?.minor) ?? 0,
    fileMode: node.fileMode ?? host?.fileMode ?? 0o666,
    uid: node.uid ?? process.user.uid,
    gid: node.gid ?? process.user.gid,
  };
  return { device, permissions: node.permissions || 'rwm' };
}

async function onHost(path: string): Promise<SpecDevice | undefined> {
  const stats = await lstat(path).catch((e: unknown) => {
    throw invalid(FIELD, messageOf(e));
  });
  return deviceOf(path, stats);
}

function mergeEnv(env: readonly string[], more: readonly string[]): string[] {
  const all = new Map(env.map((entry) => [entry.split('=', 1)[0], entry]));
  for (const entry of more) all.set(entry.split('=', 1)[0], entry);
  return [...all.values()];
}

function addGroups(groups: readonly number[], more: readonly number[]): number[] {
  // Group 0 would be root's; the reference implementation leaves it out, too.
  return [...new Set([...groups, ...more.filter((gid) => gid !== 0)])];
}

function specMount({
  hostPath,
  containerPath,
  options = [],
  type = '',
}: NonNullable<CdiEdits['mounts']>[number]) {
  const isBind = type === 'bind' || type === '' || type === 'none';
  const bound = options.some((option) => option === 'bind' || option === 'rbind');
  return {
    destination: containerPath,
    type: isBind ? 'bind' : type,
    source: hostPath,
    options: isBind && !bound ? ['rbind', ...options] : options,
  };
}

/** Shallow before deep, so that none hides another. */
function mergeMounts(mounts: readonly SpecMount[], more: readonly SpecMount[]): SpecMount[] {
  if (more.length === 0) return [...mounts];
  const taken = new Set(more.map(({ destination }) => destination));
  const all = [...mounts.filter(({ destination }) => !taken.has(destination)), ...more];
  return all.sort((a, b) => depth(a.destination) - depth(b.destination));
}

function depth(path: string): number {
  return path.split('/').filter((part) => part !== '').length;
}

function mergeHooks(
  hooks: Readonly<Record<string, SpecHook[]>>,
  more: NonNullable<CdiEdits['hooks']>,
): Record<string, SpecHook[]> {
  const all = { ...hooks };
  for (const { hookName, path, args, env, timeout } of more) {
    const hook: SpecHook = {
      path,
      ...(args === undefined ? {} : { args }),
      ...(env === undefined ? {} : { env }),
      ...(timeout === undefined ? {} : { timeout }),
    };
    all[hookName] = [...(all[hookName] ?? []), hook];
  }
  return all;
}

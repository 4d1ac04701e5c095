import { describe, expect, test } from 'vitest';
import { missingFeatures, parseFeatures } from '../../../src/isolation/features.ts';

/** As runc 1.3 answers; 1.1 has no mountExtensions. */
const NEW = '{"mountOptions":["ro","rro"],"linux":{"mountExtensions":{"idmap":{"enabled":true}}}}';
const OLD = '{"mountOptions":["ro","rro"],"linux":{"namespaces":["user"]}}';

describe('what a runtime handler lacks', () => {
  test('nothing where runtime and kernel can', () => {
    expect(missingFeatures('/r', parseFeatures(NEW), {})).toEqual({});
  });

  test('what the runtime cannot', () => {
    expect(missingFeatures('/r', parseFeatures(OLD), {})).toEqual({
      userNamespaces: '/r cannot map the owners of mounts (runc can from version 1.2 on)',
    });
    const off = '{"mountOptions":["ro"],"linux":{"mountExtensions":{"idmap":{"enabled":false}}}}';
    expect(Object.keys(missingFeatures('/r', parseFeatures(off), {}))).toEqual([
      'recursiveReadOnlyMounts',
      'userNamespaces',
    ]);
  });

  test('everything of a runtime that does not tell', () => {
    const all = ['recursiveReadOnlyMounts', 'userNamespaces'];
    expect(Object.keys(missingFeatures('/r', undefined, {}))).toEqual(all);
    for (const text of ['{}', 'null', '[]', '{"mountOptions":{},"linux":null}', '{"mountOptions":[1]}'])
      expect(Object.keys(missingFeatures('/r', parseFeatures(text), {})), text).toEqual(all);
  });

  test('what the kernel cannot', () => {
    const kernel = { recursiveReadOnlyMounts: 'kernel: ENOSYS', userNamespaces: 'layers: EINVAL' };
    expect(missingFeatures('/r', parseFeatures(NEW), kernel)).toEqual(kernel);
  });
});

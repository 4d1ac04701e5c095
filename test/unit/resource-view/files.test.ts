import { describe, expect, test } from 'vitest';
import { ANNOTATION, VIEW_FILES, viewMounts, wantsView } from '../../../src/resource-view/files.ts';
import { containerConfig, mount, sandboxConfig } from '../spec/configs.ts';

describe('whether a container has a view', () => {
  test.each([
    [undefined, false, false],
    [undefined, true, true],
    ['true', false, true],
    ['false', true, false],
  ])('annotation %j, handler %j: %j', (value, byHandler, wanted) => {
    const annotations: Record<string, string> = value === undefined ? {} : { [ANNOTATION]: value };
    expect(wantsView(sandboxConfig({ annotations }), byHandler)).toBe(wanted);
  });

  test('an annotation that says neither is refused', () => {
    const config = sandboxConfig({ annotations: { [ANNOTATION]: 'True' } });
    expect(() => wantsView(config, true)).toThrow(/must be "true" or "false"/);
  });
});

describe('its mounts', () => {
  const destinations = (...paths: string[]) =>
    viewMounts(
      '/l',
      VIEW_FILES,
      containerConfig({ mounts: paths.map((containerPath) => mount({ containerPath })) }),
    ).map(({ destination }) => destination);

  test('are read-only files of lxcfs at the same places', () => {
    const [first] = viewMounts('/var/lib/lxcfs', ['/proc/meminfo'], containerConfig());
    expect(first).toEqual({
      destination: '/proc/meminfo',
      type: 'bind',
      source: '/var/lib/lxcfs/proc/meminfo',
      options: ['bind', 'rprivate', 'ro', 'nosuid', 'nodev', 'noexec'],
    });
    expect(destinations()).toEqual(VIEW_FILES);
  });

  test('leave alone what the container mounts itself, and all below it', () => {
    expect(destinations('/sys/', '/data')).toEqual(VIEW_FILES.filter((file) => file.startsWith('/proc')));
    expect(destinations('/proc/./meminfo')).not.toContain('/proc/meminfo');
    expect(destinations('/proc/mem', '/s')).toEqual(VIEW_FILES);
  });
});

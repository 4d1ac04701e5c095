import { expect, test } from 'vitest';
import { capabilitiesOfMask, containerCapabilities } from '../../../src/spec/capabilities.ts';
import { DEFAULT_CAPS } from './configs.ts';

const HOST = new Set([...DEFAULT_CAPS, 'CAP_SYS_ADMIN', 'CAP_NET_ADMIN']);
const without = (...names: string[]): string[] => [...HOST].filter((c) => !names.includes(c)).sort();

test.each<[string, string[], string[], boolean, string[]]>([
  ['defaults', [], [], false, DEFAULT_CAPS],
  ['add without prefix', ['net_admin'], [], false, [...DEFAULT_CAPS, 'CAP_NET_ADMIN']],
  ['add with prefix', ['CAP_NET_ADMIN'], [], false, [...DEFAULT_CAPS, 'CAP_NET_ADMIN']],
  ['drop', [], ['CHOWN'], false, DEFAULT_CAPS.filter((c) => c !== 'CAP_CHOWN')],
  ['drop all, add one', ['KILL'], ['ALL'], false, ['CAP_KILL']],
  ['add all, drop one', ['ALL'], ['KILL'], false, without('CAP_KILL')],
  ['drop all', [], ['all'], false, []],
  ['what the daemon lacks', ['SYS_RESOURCE'], [], false, DEFAULT_CAPS],
  ['privileged', [], ['ALL'], true, without()],
])('%s', (_name, add, drop, privileged, wanted) => {
  const caps = containerCapabilities({ add, drop, ambient: [] }, privileged, HOST);
  const sorted = [...wanted].sort();
  expect(caps).toEqual({
    bounding: sorted,
    effective: sorted,
    permitted: sorted,
    inheritable: [],
    ambient: [],
  });
});

test('ambient capabilities are in every set', () => {
  const caps = containerCapabilities({ add: [], drop: ['ALL'], ambient: ['NET_BIND_SERVICE'] }, false, HOST);
  for (const set of Object.values(caps)) expect(set).toEqual(['CAP_NET_BIND_SERVICE']);
});

test.each([
  ['add_capabilities[1]', { add: ['KILL', 'FLY'], drop: [], ambient: [] }],
  ['drop_capabilities[0]', { add: [], drop: [''], ambient: [] }],
  ['add_ambient_capabilities[0]', { add: [], drop: [], ambient: ['ALL'] }],
])('a name that Linux does not know is refused: %s', (field, wanted) => {
  expect(() => containerCapabilities(wanted, false, HOST)).toThrow(
    `config.linux.security_context.capabilities.${field}: `,
  );
});

test('masks of /proc/<pid>/status', () => {
  expect([...capabilitiesOfMask('0000000000000021')]).toEqual(['CAP_CHOWN', 'CAP_KILL']);
  const all = capabilitiesOfMask('000001ffffffffff');
  expect(all.size).toBe(41);
  expect(capabilitiesOfMask('000001fffeffffff').has('CAP_SYS_RESOURCE')).toBe(false);
  expect(capabilitiesOfMask('ffffffffffffffff')).toEqual(all);
});

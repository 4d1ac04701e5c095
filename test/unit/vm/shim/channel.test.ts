import { expect, it } from 'vitest';
import { chooseChannel } from '../../../../src/vm/shim/hypervisor.ts';

it('the agent is reached over vsock where the host has it, unless the configuration says otherwise', () => {
  const [has, hasNot] = [() => true, () => false];
  expect(chooseChannel('auto', has)).toBe('vsock');
  expect(chooseChannel('auto', hasNot)).toBe('virtio-serial');
  expect(chooseChannel('virtio-serial', has)).toBe('virtio-serial');
  expect(chooseChannel('vsock', has)).toBe('vsock');
  expect(() => chooseChannel('vsock', hasNot)).toThrow('vm.channel');
});

import { describe, expect, it } from 'vitest';
import { hasDevice } from '../../../../src/vm/hypervisor/qemu/host.ts';
import { qemuSettings } from '../../../../src/vm/shim/hypervisor.ts';

const SETTINGS = { qemu: '/q', machine: '', rootfs: 'virtiofs' } as const;

describe("QEMU's settings", () => {
  it.each([true, false])('have the kernel copy frames where it can: %s', (vhostNet) => {
    expect(qemuSettings(SETTINGS, { isKvm: false, vhostNet })).toMatchObject({
      vhostNet,
      accelerator: 'tcg',
    });
  });

  it('are those of the fastest machine that the host and the pods allow', () => {
    const kvm = { isKvm: true, vhostNet: false };
    expect(qemuSettings(SETTINGS, kvm)).toMatchObject({ machine: 'microvm', accelerator: 'kvm' });
    const disks = { ...SETTINGS, rootfs: 'erofs' } as const;
    expect(qemuSettings(disks, kvm).machine).toBe('q35');
    expect(qemuSettings(SETTINGS, { ...kvm, isKvm: false }).machine).toBe('q35');
    expect(qemuSettings({ ...SETTINGS, machine: 'pc' }, kvm).machine).toBe('pc');
    expect(() => qemuSettings({ ...disks, machine: 'microvm' }, kvm)).toThrow(/vm.rootfs/);
    expect(() => qemuSettings({ ...SETTINGS, machine: 'vax' }, kvm)).toThrow(/vm.machine/);
  });
});

it.each([
  ['/dev/null', true],
  ['/dev/null/none', false],
  ['/dev/berth-none', false],
])('the device %s is there: %s', async (device, isThere) => {
  expect(await hasDevice(device)).toBe(isThere);
});

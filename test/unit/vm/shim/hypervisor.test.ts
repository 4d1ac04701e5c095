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

  it('are a q35 unless another machine is named that can what the handler needs', () => {
    const kvm = { isKvm: true, vhostNet: false };
    expect(qemuSettings(SETTINGS, kvm)).toMatchObject({ machine: 'q35', accelerator: 'kvm' });
    expect(qemuSettings({ ...SETTINGS, machine: 'microvm' }, kvm).rootDevice).toBe('virtio-blk');
    expect(qemuSettings({ ...SETTINGS, machine: 'pc' }, kvm).machine).toBe('pc');
    const disks = { ...SETTINGS, rootfs: 'erofs' } as const;
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

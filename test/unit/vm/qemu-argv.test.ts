import { describe, expect, it } from 'vitest';
import { type Launch, type QemuSettings, qemuArgv } from '../../../src/vm/hypervisor/qemu/argv.ts';
import { keyValues } from '../../../src/vm/hypervisor/qemu/switches.ts';
import type { VmConfig } from '../../../src/vm/types.ts';

const MIB = 1n << 20n;

const settings: QemuSettings = {
  program: '/usr/bin/qemu-system-x86_64',
  machine: 'q35',
  accelerator: 'tcg',
  rootDevice: 'pmem',
  translationCache: 64,
  vhostNet: false,
  hotplugPorts: 0,
};

const config: VmConfig = {
  id: '0123456789abcdef'.repeat(4),
  dir: '/run/vm/a',
  netns: undefined,
  cgroups: [],
  vcpus: 1,
  maxVcpus: 1,
  memoryBytes: 256n * MIB,
  maxMemoryBytes: 256n * MIB,
  boot: {
    kernel: '/img/vmlinux',
    initrd: '/img/initrd',
    rootfs: '/img/root.ext4',
    rootfsType: 'ext4',
    kernelArgs: ['quiet'],
  },
  kernelArgs: ['berth.debug'],
  channel: 'virtio-serial',
  nics: [],
  disks: [],
  shares: [],
};

function argv(
  changes: Partial<VmConfig> = {},
  host: Partial<QemuSettings> = {},
  launch: Partial<Launch> = {},
) {
  return qemuArgv({
    settings: { ...settings, ...host },
    config: { ...config, ...changes },
    rootfsBytes: 128n * MIB,
    qmpSocket: '/run/vm/a/qmp.sock',
    agentSocket: '/run/vm/a/agent.sock',
    tapFds: new Map(),
    ...launch,
  });
}

/** The arguments that the plain machine has not: what a change adds or makes different. */
function added(...changed: Parameters<typeof argv>): string[] {
  const plain = new Set<string>(argv());
  return argv(...changed).filter((arg) => !plain.has(arg));
}

describe('the command line of QEMU', () => {
  it('is this for the plainest machine', () => {
    expect(
      argv()
        .join(' ')
        .split(/ (?=-[a-z])/),
    ).toEqual([
      '/usr/bin/qemu-system-x86_64',
      '-name berth-0123456789ab,debug-threads=on',
      '-no-user-config',
      '-nodefaults',
      '-display none',
      '-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
      '-action reboot=shutdown,shutdown=pause,panic=pause',
      '-machine q35,memory-backend=ram,dump-guest-core=off,usb=off,vmport=off,smm=off,smbus=off,' +
        'graphics=off,hpet=off,i8042=off,sata=off',
      '-accel tcg,thread=multi,tb-size=64',
      '-cpu max',
      '-smp 1,maxcpus=1,sockets=1,cores=1,threads=1',
      '-m 256M,maxmem=1280M',
      '-object memory-backend-memfd,id=ram,size=268435456,share=on,dump=off,merge=off',
      '-kernel /img/vmlinux',
      '-initrd /img/initrd',
      '-append quiet swiotlb=noforce root=/dev/pmem0 rootflags=dax ro rootfstype=ext4 berth.debug',
      '-chardev socket,id=qmp,path=/run/vm/a/qmp.sock,server=off',
      '-mon qmp,mode=control',
      '-chardev ringbuf,id=console,size=65536',
      '-device isa-serial,chardev=console',
      '-device pvpanic',
      '-chardev socket,id=agent,path=/run/vm/a/agent.sock,server=on,wait=off',
      '-device virtio-serial-pci,id=serial0,max_ports=2',
      '-device virtserialport,bus=serial0.0,chardev=agent,name=berth.agent,nr=1',
      '-object memory-backend-file,id=root,mem-path=/img/root.ext4,size=134217728,share=on,readonly=on,dump=off',
      '-device virtio-pmem-pci,id=pmem0,memdev=root',
      '-object rng-random,id=rng0,filename=/dev/urandom',
      '-device virtio-rng-pci,rng=rng0',
      '-device virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on',
    ]);
  });

  it('has the root file system as a disk where that is asked for', () => {
    expect(added({}, { rootDevice: 'virtio-blk' })).toEqual([
      '256M',
      'quiet swiotlb=noforce root=/dev/vda ro rootfstype=ext4 berth.debug',
      '-blockdev',
      'raw,node-name=root,read-only=on,file.driver=file,file.filename=/img/root.ext4,file.aio=threads,file.locking=off',
      'virtio-blk-pci,id=root-device,drive=root,share-rw=on',
    ]);
  });

  it('uses KVM with the host processor, and microvm only with it', () => {
    expect(added({}, { accelerator: 'kvm' })).toEqual(['kvm', 'host']);
    expect(argv({}, { accelerator: 'kvm', machine: 'microvm', rootDevice: 'virtio-blk' })).toContain(
      'microvm,memory-backend=ram,dump-guest-core=off,acpi=on,pcie=on',
    );
    expect(() => argv({}, { machine: 'microvm', rootDevice: 'virtio-blk' })).toThrow(
      'machine "microvm" needs KVM',
    );
    expect(() => argv({}, { machine: 'microvm', accelerator: 'kvm' })).toThrow('no persistent memory');
  });

  it('leaves no switch for SATA to a board that has none', () => {
    expect(argv({}, { machine: 'pc' }).find((arg) => arg.startsWith('pc,'))).not.toContain('sata');
  });

  it('has shares, disks and cards', () => {
    expect(
      added(
        {
          shares: [{ tag: 'berth', socket: '/run/vm/a/fs.sock' }],
          disks: [{ id: 'ctr-1', path: '/with,comma.img', format: 'raw', readOnly: false }],
          nics: [
            {
              name: 'eth0',
              mac: '0a:58:0a:00:00:02',
              mtu: 1450,
              tap: { kind: 'tap', device: 'berth0' },
            },
            {
              name: 'eth1',
              mac: '0a:58:0a:00:00:03',
              mtu: 1500,
              tap: { kind: 'macvtap', device: 'berth1', node: '/run/vm/a/tap1' },
            },
          ],
        },
        { vhostNet: true },
        { tapFds: new Map([['eth1', 3]]) },
      ),
    ).toEqual([
      '-blockdev',
      'raw,node-name=disk0,read-only=off,discard=unmap,file.driver=file,file.filename=/with,,comma.img,file.aio=threads',
      'virtio-blk-pci,id=disk0-device,drive=disk0,serial=ctr-1,werror=report',
      'socket,id=fs0,path=/run/vm/a/fs.sock,server=off',
      'vhost-user-fs-pci,chardev=fs0,tag=berth,queue-size=1024',
      '-netdev',
      'tap,id=net0,ifname=berth0,script=no,downscript=no,vhost=on',
      'virtio-net-pci,netdev=net0,mac=0a:58:0a:00:00:02,host_mtu=1450,romfile=',
      '-netdev',
      'tap,id=net1,fd=3,vhost=on',
      'virtio-net-pci,netdev=net1,mac=0a:58:0a:00:00:03,host_mtu=1500,romfile=',
    ]);
  });

  it('reaches the agent over vsock, by a descriptor that has the address already', () => {
    const vsock = { cid: 0x8000_0000, fd: 4 };
    expect(added({ channel: 'vsock' }, {}, { vsock })).toEqual([
      'quiet swiotlb=noforce root=/dev/pmem0 rootflags=dax ro rootfstype=ext4 berth.channel=vsock berth.debug',
      'vhost-vsock-pci,guest-cid=2147483648,vhostfd=4',
    ]);
    expect(argv({ channel: 'vsock' }, {}, { vsock }).join(' ')).not.toContain('virtio-serial');
    expect(() => argv({ channel: 'vsock' })).toThrow('without an address');
  });

  it('keeps room to grow, in steps that a guest can plug', () => {
    expect(added({ maxVcpus: 4, maxMemoryBytes: 500n * MIB })).toEqual([
      '1,maxcpus=4,sockets=1,cores=4,threads=1',
      '256M,maxmem=1536M',
      'quiet swiotlb=noforce memhp_default_state=online memory_hotplug.online_policy=auto-movable ' +
        'root=/dev/pmem0 rootflags=dax ro rootfstype=ext4 berth.debug',
      'memory-backend-memfd,id=vmem,size=268435456,share=on,dump=off,merge=off,reserve=off',
      'virtio-mem-pci,id=vmem0,memdev=vmem,requested-size=0',
    ]);
  });

  it('refuses what the machine cannot be', () => {
    expect(() => argv({ memoryBytes: 1000n })).toThrow('no multiple of 1 MiB');
    expect(() => argv({ vcpus: 3, maxVcpus: 2 })).toThrow('vcpus: 3 of at most 2');
    expect(() => argv({}, {}, { rootfsBytes: 3n * MIB })).toThrow('multiple of 2 MiB');
    expect(() =>
      argv({
        nics: [{ name: 'e', mac: 'm', mtu: 1500, tap: { kind: 'macvtap', device: 'd', node: '/dev/tap5' } }],
      }),
    ).toThrow('e: d has not been opened');
  });
});

describe('a list of keys and values', () => {
  it('doubles commas, spells booleans on and off, and leaves out what is undefined', () => {
    expect(keyValues('a,b', { on: true, off: false, none: undefined, 'x.y': 'c,d', n: 5n })).toBe(
      'a,,b,on=on,off=off,x.y=c,,d,n=5',
    );
  });
});

/** What lies behind the stand-in's API when a guest is to run: QEMU, with the devices that the calls have named. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { VSOCK_ARGUMENT } from '../../src/vm/protocol/names.ts';

const POLL_MS = 50;

/** Bodies of calls, as the stand-in has checked them. */
export interface Wanted {
  machine: Record<string, unknown>;
  boot: Record<string, unknown>;
  drives: readonly Record<string, unknown>[];
  nics: readonly Record<string, unknown>[];
}

/** A guest that runs. It ends with this process. */
export class Guest {
  readonly process: ChildProcess;
  readonly #dir: string;
  readonly #drives: string[];
  readonly #nodes = new Map<string, string>();
  readonly #events: { event: string; data: Record<string, unknown> }[] = [];
  readonly #answers: ((answer: Record<string, unknown>) => void)[] = [];
  #qmp: Promise<Socket> | undefined;
  #count = 0;

  constructor(dir: string, { machine, boot, drives, nics }: Wanted) {
    this.#dir = dir;
    this.#drives = drives.map(({ drive_id }) => String(drive_id));
    const args = [
      ...[
        '-nodefaults',
        '-no-user-config',
        '-display',
        'none',
        '-no-reboot',
        '-machine',
        'q35',
        '-cpu',
        'max',
      ],
      ...['-accel', 'tcg,thread=multi,tb-size=64'],
      ...['-m', `${machine.mem_size_mib}`, '-smp', `${machine.vcpu_count}`],
      ...[
        '-kernel',
        `${boot.kernel_image_path}`,
        '-initrd',
        `${boot.initrd_path}`,
        '-append',
        // The agent's port there is a virtio-serial one, which stands in for the vsock.
        `${boot.boot_args}`.replace(VSOCK_ARGUMENT, ''),
      ],
      ...['-qmp', `unix:${this.#at('monitor')},server=on,wait=off`],
      ...['-chardev', `socket,id=agent,path=${this.#at('agent')},server=on,wait=off`],
      ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=agent,name=berth.agent'],
      ...drives.flatMap(({ drive_id, path_on_host, is_read_only }, index) => {
        const { node, device } = this.#disk(String(drive_id), String(path_on_host), is_read_only === true);
        return [
          ...['-device', `pcie-root-port,id=port${index},chassis=${index + 1}`],
          ...['-blockdev', JSON.stringify(node), '-device', JSON.stringify(device)],
        ];
      }),
      ...nics.flatMap(({ host_dev_name, guest_mac }, index) => [
        ...['-netdev', `tap,id=net${index},ifname=${host_dev_name},script=no,downscript=no`],
        ...['-device', `virtio-net-pci,netdev=net${index},mac=${guest_mac},romfile=`],
      ]),
    ];
    this.process = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
  }

  /** The agent's byte stream. */
  async agent(): Promise<Socket> {
    return this.#connect('agent');
  }

  /** Puts another file behind a drive, whose name in the guest stays: it is the only one that is free then. */
  async exchange(drive: string, file: string, readOnly: boolean): Promise<void> {
    const old = this.#nodes.get(drive);
    await this.#execute('device_del', { id: drive });
    while (!this.#events.some(({ event, data }) => event === 'DEVICE_DELETED' && data.device === drive)) {
      await delay(POLL_MS);
    }
    this.#events.length = 0;
    await this.#execute('blockdev-del', { 'node-name': old });
    const { node, device } = this.#disk(drive, file, readOnly);
    await this.#execute('blockdev-add', node);
    await this.#execute('device_add', device);
  }

  #at(name: string): string {
    return path.join(this.#dir, `stand-in-${name}.sock`);
  }

  #disk(drive: string, filename: string, readOnly: boolean) {
    const name = `node${++this.#count}`;
    this.#nodes.set(drive, name);
    return {
      node: {
        ...{ driver: 'raw', 'node-name': name, 'read-only': readOnly },
        file: { driver: 'file', filename, locking: 'off' },
      },
      device: {
        ...{ driver: 'virtio-blk-pci', id: drive, drive: name, bus: `port${this.#drives.indexOf(drive)}` },
        ...(readOnly ? { 'share-rw': true } : {}),
      },
    };
  }

  async #connect(name: string): Promise<Socket> {
    for (;;) {
      const socket = connect(this.#at(name));
      try {
        await once(socket, 'connect');
        return socket;
      } catch {
        await delay(POLL_MS);
      }
    }
  }

  async #monitor(): Promise<Socket> {
    const socket = await this.#connect('monitor');
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line);
      if ('event' in message) this.#events.push(message);
      else if (!('QMP' in message)) this.#answers.shift()?.(message);
    });
    socket.write('{"execute":"qmp_capabilities"}\n');
    await new Promise((resolve) => this.#answers.push(resolve));
    return socket;
  }

  async #execute(command: string, args: object): Promise<void> {
    this.#qmp ??= this.#monitor();
    const socket = await this.#qmp;
    socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const answer = await new Promise<Record<string, unknown>>((resolve) => this.#answers.push(resolve));
    if ('error' in answer) throw new Error(JSON.stringify(answer.error));
  }
}

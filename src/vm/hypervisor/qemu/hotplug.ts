import { stat } from 'node:fs/promises';
import { BerthError } from '../../../errors.ts';
import { orAborted } from '../../../util/abort.ts';
import type { VmDisk } from '../../types.ts';
import { deviceOf, diskDevice, fileNode, hotplugPort, type QemuSettings } from './argv.ts';
import type { Qmp } from './qmp.ts';

/** Until a guest has let go of a device, milliseconds. */
const REMOVE_MS = 20_000;

interface Plugged {
  /** The block node's name, which may not be longer than 31 bytes. */
  node: string;
  /** The port that it takes on q35. */
  port: number | undefined;
}

/** The disks that are added to a running machine and taken away from it. */
export class HotplugDisks {
  readonly #qmp: Qmp;
  readonly #settings: QemuSettings;
  readonly #plugged = new Map<string, Plugged>();
  #lastNode = 0;

  constructor(qmp: Qmp, settings: QemuSettings) {
    this.#qmp = qmp;
    this.#settings = settings;
  }

  /** @throws BerthError `unimplemented`, `exhausted`, `alreadyExists`, `internal` with QEMU's words */
  async add({ id, path, readOnly }: VmDisk, signal: AbortSignal): Promise<void> {
    if (this.#plugged.has(id)) throw new BerthError('alreadyExists', `disk ${id} is there already`);
    const plugged = { node: `hotplug${++this.#lastNode}`, port: this.#freePort() };
    const { node, port } = plugged;
    // Before the first await: the port is taken.
    this.#plugged.set(id, plugged);
    try {
      const driver = (await stat(path)).isBlockDevice() ? 'host_device' : 'file';
      await this.#qmp.execute('blockdev-add', nested(fileNode(node, path, readOnly, driver)), { signal });
      try {
        const device = diskDevice(node, readOnly, id);
        await this.#qmp.execute(
          'device_add',
          port === undefined ? device : { ...device, bus: hotplugPort(port) },
          { signal },
        );
      } catch (e: unknown) {
        await this.#qmp.execute('blockdev-del', { 'node-name': node }).catch(() => {});
        throw e;
      }
    } catch (e: unknown) {
      this.#plugged.delete(id);
      throw e;
    }
  }

  /** Repeatable. @throws BerthError `deadline` when the guest does not let go; the signal's reason */
  async remove(id: string, signal: AbortSignal): Promise<void> {
    const plugged = this.#plugged.get(id);
    if (plugged === undefined) return;
    const device = deviceOf(plugged.node);
    const { promise: gone, resolve } = Promise.withResolvers<void>();
    const unlisten = this.#qmp.onEvent(({ name, data }) => {
      if (name === 'DEVICE_DELETED' && data.device === device) resolve();
    });
    const timeout = AbortSignal.timeout(REMOVE_MS);
    try {
      // The guest is asked; QEMU answers at once.
      await this.#qmp.execute('device_del', { id: device }, { signal });
      await orAborted(gone, AbortSignal.any([signal, timeout]));
    } catch (e: unknown) {
      if (e !== timeout.reason) throw e;
      throw new BerthError('deadline', `the guest does not let go of disk ${id}`);
    } finally {
      unlisten();
    }
    await this.#qmp.execute('blockdev-del', { 'node-name': plugged.node }, { signal });
    this.#plugged.delete(id);
  }

  #freePort(): number | undefined {
    const { machine, hotplugPorts } = this.#settings;
    if (machine === 'pc') return undefined;
    if (machine !== 'q35') throw new BerthError('unimplemented', `${machine} takes no disk while it runs`);
    const taken = new Set([...this.#plugged.values()].map(({ port }) => port));
    for (let port = 0; port < hotplugPorts; port++) if (!taken.has(port)) return port;
    throw new BerthError('exhausted', `all ${hotplugPorts} places for disks of the machine are taken`);
  }
}

/** `file.driver` of the command line is `driver` of the object `file` in QMP. */
function nested(flat: object): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const inner: Record<string, Record<string, unknown>> = {};
  for (const [key, value] of Object.entries(flat)) {
    const [head = key, tail] = key.split('.');
    if (tail === undefined) result[key] = value;
    else inner[head] = { ...inner[head], [tail]: value };
  }
  return { ...result, ...inner };
}

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { vi } from 'vitest';
import type { ContainerRecord } from '../../../src/container/record.ts';
import { noFaults } from '../../../src/faults.ts';
import { DaemonMetrics } from '../../../src/metrics/daemon.ts';
import { Paths } from '../../../src/paths.ts';
import { Database } from '../../../src/persist/database.ts';
import { RecordStore } from '../../../src/persist/record-store.ts';
import type { SandboxRecord } from '../../../src/sandbox/record.ts';
import type { Services } from '../../../src/services.ts';
import { isAlive } from '../../../src/sys/process-identity.ts';
import { KeyedMutex } from '../../../src/util/keyed-mutex.ts';
import { SingleFlight } from '../../../src/util/single-flight.ts';
import { container, sandbox } from '../cri/records.ts';

/** Throws on whatever a test did not provide, instead of answering undefined. */
export function partial<T extends object>(name: string, members: Partial<Record<keyof T, unknown>>): T {
  return new Proxy(members, {
    get(target, key) {
      // Promises are recognised by this member.
      if (key === 'then' || Object.hasOwn(target, key)) return Reflect.get(target, key);
      throw new Error(`the test provides no ${name}.${String(key)}`);
    },
  }) as T;
}

/** Real records, locks and directories; the machine is what the test says. */
export function fakeServices() {
  const dir = mkdtempSync(path.join(tmpdir(), 'berth-unit-'));
  const db = new Database(path.join(dir, 'berth.db'));
  const paths = new Paths(path.join(dir, 'root'), path.join(dir, 'state'));
  for (const made of [paths.exits, paths.sandboxes, paths.bundles, paths.writableLayers]) {
    mkdirSync(made, { recursive: true });
  }
  const machine = {
    /** Of the OCI runtime. */
    isStarted: vi.fn(async (_id: string) => false),
    delete: vi.fn(async (_id: string) => undefined),
    oomKills: vi.fn((_cgroup: string): bigint | undefined => 0n),
    killCgroup: vi.fn(async (_cgroup: string) => undefined),
    removeCgroup: vi.fn(async (_cgroup: string) => undefined),
    /** What happens at a step; a test may let one fail. */
    step: vi.fn(async (_point: string) => undefined),
    watch: vi.fn((_id: string, _process: unknown, _onExit: () => Promise<void>) => undefined),
    logged: [] as { level: string; message: string; fields: Record<string, unknown> }[],
  };
  const logAt = (level: string) => (fields: Record<string, unknown>, message: string) =>
    void machine.logged.push({ level, fields, message });
  const runtime = {
    isStarted: machine.isStarted,
    delete: machine.delete,
    isMonitored: ({ conmon }: ContainerRecord) => conmon !== undefined && isAlive(conmon),
    ended: ({ conmon }: ContainerRecord) => conmon,
  };
  const s = partial<Services>('services', {
    paths,
    bootId: 'this boot',
    faults: noFaults,
    log: Object.fromEntries(['debug', 'info', 'warn', 'error'].map((level) => [level, logAt(level)])),
    sandboxes: new RecordStore<SandboxRecord>(db, 'sandboxes', 'sandbox'),
    containers: new RecordStore<ContainerRecord>(db, 'containers', 'container', {
      sandbox_id: (c: ContainerRecord) => c.sandboxId,
    }),
    creating: new SingleFlight<string>(),
    locks: new KeyedMutex(),
    metrics: new DaemonMetrics(false),
    runtimes: new Map([['', runtime]]),
    exits: partial('exits', { watch: machine.watch }),
    cgroups: partial('cgroups', {
      oomKills: machine.oomKills,
      kill: machine.killCgroup,
      remove: machine.removeCgroup,
    }),
  });
  const close = () => {
    db.close();
    rmSync(dir, { recursive: true });
  };
  const addSandbox = (over: Partial<SandboxRecord> = {}) => {
    const record = sandbox({ bootId: 'this boot', ...over });
    s.sandboxes.put(record);
    return record;
  };
  const addContainer = (over: Partial<ContainerRecord> = {}) => {
    const record = container(over);
    s.containers.put(record);
    return record;
  };
  return { s, machine, addSandbox, addContainer, close };
}

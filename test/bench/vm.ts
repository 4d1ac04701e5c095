import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import { readVmMemory, type VmMemory } from '../../src/vm/memory.ts';
import { Berthd } from '../support/berthd.ts';
import { guestImages, testGuestImage } from '../support/guest.ts';
import { commandLines } from '../support/host.ts';
import { type Pod, Pods, sh, until } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';
import { median } from './measure.ts';

/** Bytes that go through a volume and through the network. */
const FILE_BYTES = 64 << 20;
const EXECS = 10;
const CONTAINERS = 3;
const MIB = 1 << 20;

const { pods: count } = new Command('bench-vm')
  .description('What pods in virtual machines take: time, memory, throughput')
  .option('--pods <n>', 'machines that run together in the end', toCount, 5)
  .parse()
  .opts<{ pods: number }>();

function toCount(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1 || number > 100)
    throw new InvalidArgumentError('from 1 to 100');
  return number;
}

const table = new Table({ head: ['measure', 'value'], style: { head: [], border: [] } });
const row = (measure: string, value: number, unit: string): void => {
  table.push([measure, `${value < 10 ? value.toFixed(2) : Math.round(value)} ${unit}`]);
};
await testGuestImage();
const directory = await mkdtemp(path.join(tmpdir(), 'berth-bench-vm-'));
const berthd = await Berthd.start({ logLevel: 'info', tables: vmTables() });
const pods = new Pods(berthd);
try {
  await berthd.importBusybox();
  await measure();
} finally {
  const left = await berthd.close();
  await rm(directory, { recursive: true, force: true });
  process.stdout.write(`${table.toString()}\n`);
  for (const line of left) process.stderr.write(`left behind: ${line}\n`);
}

async function measure(): Promise<void> {
  const [first, booted] = await timed(() => startPod());
  row('pod start to RUNNING', booted / 1000, 's');
  // Before its guest has filled its page cache.
  await memory('1 pod', [first.pod]);
  const more: number[] = [];
  for (let i = 0; i < CONTAINERS; i++) more.push((await timed(() => pods.start(first.pod)))[1]);
  row('a further container to RUNNING, p50', median(more) / 1000, 's');
  const execs: number[] = [];
  for (let i = 0; i < EXECS; i++) execs.push((await timed(() => pods.ask(first.container, 'true')))[1]);
  row('ExecSync, p50', median(execs), 'ms');
  await throughput(first);
  const all = [first.pod];
  while (all.length < count) all.push((await startPod()).pod);
  if (count > 1) await memory(`each of ${count} pods`, all);
}

async function startPod(): Promise<{ pod: Pod; container: string }> {
  const pod = await pods.run({}, VM_HANDLER);
  const mounts = [{ host_path: directory, container_path: '/bench', readonly: true }];
  return { pod, container: await pods.start(pod, sh('sleep 100000', { mounts })) };
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const began = performance.now();
  return [await work(), performance.now() - began];
}

/** Of a file of a volume that the host has in its page cache, and of a connection to the pod. */
async function throughput({ pod, container }: { pod: Pod; container: string }): Promise<void> {
  await writeFile(path.join(directory, 'file'), Buffer.alloc(FILE_BYTES, 'x'));
  const [, reading] = await timed(() => pods.ask(container, 'cat /bench/file >/dev/null'));
  row('reading a file of a volume', FILE_BYTES / MIB / (reading / 1000), 'MiB/s');
  const { ip = '' } = (await pods.podStatus(pod)).network ?? {};
  const gateway = `${ip.slice(0, ip.lastIndexOf('.'))}.1`;
  const server = createServer((socket) => socket.end(Buffer.alloc(FILE_BYTES, 'x')));
  server.listen(0, gateway);
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const [, receiving] = await timed(() => pods.ask(container, `nc ${gateway} ${port} >/dev/null`));
  row('receiving over TCP', FILE_BYTES / MIB / (receiving / 1000), 'MiB/s');
  server.close();
}

async function memory(what: string, measured: readonly Pod[]): Promise<void> {
  const sums = await Promise.all(
    measured.map(async ({ id }) => readVmMemory(await pidsOf(id), guestImages())),
  );
  const mean = (part: keyof VmMemory): number =>
    sums.reduce((sum, memory) => sum + Number(memory[part]), 0) / sums.length / MIB;
  row(`PSS, ${what}`, mean('total'), 'MiB');
  const parts = {
    guest: 'guest memory',
    image: "guest's kernel and root file system",
    hypervisor: 'hypervisor',
  };
  for (const [part, title] of Object.entries({ ...parts, fileServer: 'virtiofsd', shim: 'shim' })) {
    row(`  ${title}`, mean(part as keyof VmMemory), 'MiB');
  }
}

/** All that is marked with the sandbox. */
async function pidsOf(sandboxId: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await commandLines()).keys()) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (environment.includes(`BERTH_SHIM=${sandboxId}\0`)) found.push(pid);
  }
  await until('the machine is there', () => found.length > 0);
  return found;
}

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { loadShimProtos } from '../../../proto/load-shim.ts';
import { listenForEvents, type ShimEvent } from '../../../src/shim/events-sink.ts';
import { TtrpcClient } from '../../../src/shim/ttrpc/client.ts';
import { protobuf } from '../../support/proto-facts.ts';

const protos = loadShimProtos();
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'berth-events-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

it('an events sink tells OOM kills and exits, answers all else, and refuses what it cannot read', async () => {
  const socket = path.join(dir, 's');
  const told: ShimEvent[] = [];
  const sink = await listenForEvents(socket, protos, (event) => told.push(event));
  const shim = await TtrpcClient.connect(socket, protos, 5_000);
  const forward = (type: string, value: Uint8Array) => {
    const event = { type_url: type, value: Buffer.from(value) };
    return shim.call(protos.events.Forward, { envelope: { topic: '/t', event } }, { timeoutMs: 5_000 });
  };
  const exit = protobuf.Writer.create();
  exit.uint32(10).string('c1').uint32(18).string('e1').uint32(24).uint32(42).uint32(32).uint32(3);
  await forward('containerd.events.TaskOOM', protobuf.Writer.create().uint32(10).string('c1').finish());
  await forward('types.example/containerd.events.TaskExit', exit.finish());
  await forward('containerd.events.TaskStart', new Uint8Array());
  await shim.call(protos.events.Forward, {}, { timeoutMs: 5_000 });
  await expect(forward('containerd.events.TaskOOM', Buffer.from([0xff]))).rejects.toThrow();
  expect(told).toEqual([
    { kind: 'oom', container: 'c1' },
    { kind: 'exit', container: 'c1', process: 'e1', pid: 42, code: 3 },
  ]);
  shim.close();
  await sink.close();
});

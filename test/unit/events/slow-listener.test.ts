import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { Code } from '../../../cri/grpc/codes.ts';
import { GrpcServer } from '../../../cri/grpc/server.ts';
import { runtimeService } from '../../../cri/services.ts';
import { loadProtos } from '../../../proto/load.ts';
import { Events } from '../../../src/events/events.ts';
import type { Logger } from '../../../src/log.ts';
import type { Services } from '../../../src/services.ts';
import { fakeServices } from '../recover/services.ts';

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** How many events a listener may be behind here. */
const MAX_BEHIND = 20;

it('a listener that reads nothing is ended with RESOURCE_EXHAUSTED after what gRPC had taken; another gets all', async () => {
  const fake = fakeServices();
  const dir = mkdtempSync(path.join(tmpdir(), 'berth-events-'));
  undo.push(fake.close, () => rmSync(dir, { recursive: true }));
  const events = new Events(fake.s.sandboxes, fake.s.containers, MAX_BEHIND);
  const { runtimeService: definition } = loadProtos();
  const server = new GrpcServer();
  const log = { debug: () => {} } as unknown as Logger;
  const services = { events } as Services;
  server.addService(
    definition,
    runtimeService(
      services,
      { log, recovery: { known: Promise.resolve(), done: Promise.resolve() } },
      definition,
    ),
  );
  const socket = path.join(dir, 'sock');
  await server.listen(socket);
  undo.push(() => void server.close(0));
  const session = http2.connect('http://localhost', { createConnection: () => net.connect(socket) });
  undo.push(() => session.destroy());
  // Not with grpc-js' client, which takes in whatever comes, wanted or not.
  const subscribe = async () => {
    const call = session.request({
      ':method': 'POST',
      ':path': definition.GetContainerEvents.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    // A message that is not compressed and has no bytes.
    call.end(Buffer.alloc(5));
    const code = new Promise((resolve) =>
      call.once('trailers', (trailers) => resolve(Number(trailers['grpc-status']))),
    );
    await once(call, 'response');
    return { call, code };
  };
  const slow = await subscribe();
  const quick = await subscribe();
  let [heard, told] = [0, 0];
  quick.call.on('data', (bytes: Buffer) => (heard += bytes.length));
  // Large statuses fill what the connection holds.
  const big = 100_000;
  fake.addSandbox({ phase: 'creating', ips: ['x'.repeat(big)] });
  while (events.cutOff === 0 && told < 1000) {
    fake.s.sandboxes.update('sb1', { phase: 'live' });
    fake.s.sandboxes.update('sb1', { phase: 'creating' });
    told += 3;
    while (heard < told * big) await new Promise((resolve) => setImmediate(resolve));
  }
  expect([events.cutOff, events.subscribers]).toEqual([1, 1]);
  let read = 0;
  slow.call.on('data', (bytes: Buffer) => (read += bytes.length));
  expect(await slow.code).toBe(Code.RESOURCE_EXHAUSTED);
  // What was on its way still comes; what waited does not, or the gap after it would look like none.
  expect(read).toBeGreaterThan(0);
  expect(read).toBeLessThan((told - MAX_BEHIND + 1) * (big + 1000));
});

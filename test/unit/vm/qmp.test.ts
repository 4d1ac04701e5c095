import { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Qmp, type QmpEvent } from '../../../src/vm/hypervisor/qemu/qmp.ts';

/** QEMU's side: what the client wrote, and what it is told. */
class Peer {
  readonly stream: Duplex;
  readonly asked: { execute: string; arguments?: unknown; id: number }[] = [];
  answer: (command: string, id: number) => unknown = (_, id) => ({ id, return: {} });

  constructor() {
    this.stream = new Duplex({
      read() {},
      write: (chunk, _encoding, done) => {
        const command = JSON.parse(String(chunk));
        this.asked.push(command);
        const answer = this.answer(command.execute, command.id);
        if (answer !== undefined) this.say(answer);
        done();
      },
    });
  }

  say(message: unknown): void {
    this.stream.push(typeof message === 'string' ? message : `${JSON.stringify(message)}\r\n`);
  }
}

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 } }, capabilities: ['oob'] } };

let peer: Peer;
let qmp: Qmp;
beforeEach(() => {
  peer = new Peer();
  qmp = new Qmp(peer.stream);
});
afterEach(() => qmp.close());

describe('the QMP client', () => {
  it('waits for the greeting before it negotiates', async () => {
    const ready = qmp.negotiate();
    await new Promise(setImmediate);
    expect(peer.asked).toEqual([]);
    peer.say(GREETING);
    await ready;
    expect(peer.asked).toEqual([{ execute: 'qmp_capabilities', id: 1 }]);
  });

  it('pairs answers with commands by their ids, in whatever pieces and order they come', async () => {
    peer.answer = () => undefined;
    const first = qmp.execute('query-status');
    const second = qmp.execute('query-name');
    peer.say('{"id": 2, "return": {"na');
    await new Promise(setImmediate);
    peer.say('me": "b"}}\r\n{"id": 1, "return": {"status": "running"}}\r\n');
    expect(await first).toEqual({ status: 'running' });
    expect(await second).toEqual({ name: 'b' });
  });

  it('sends sizes beyond 2^53 as integers', async () => {
    const sent: string[] = [];
    const stream = new Duplex({
      read() {},
      write(chunk, _encoding, done) {
        sent.push(String(chunk));
        this.push('{"id":1,"return":{}}\n');
        done();
      },
    });
    await new Qmp(stream).execute('qom-set', { value: 2n ** 60n });
    expect(sent).toEqual([`{"execute":"qom-set","arguments":{"value":${2n ** 60n}},"id":1}\n`]);
    stream.destroy();
  });

  it("fails a command with QEMU's words", async () => {
    peer.answer = (_, id) => ({ id, error: { class: 'GenericError', desc: "Device 'x' not found" } });
    await expect(qmp.execute('device_del', { id: 'x' })).rejects.toMatchObject({
      kind: 'internal',
      message: "QEMU: device_del: Device 'x' not found",
    });
  });

  it('tells events until nobody listens', async () => {
    const seen: QmpEvent[] = [];
    const stop = qmp.onEvent((event) => seen.push(event));
    peer.say({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
    peer.say({ event: 'SHUTDOWN', data: { guest: true, reason: 'guest-reset' }, timestamp: {} });
    await new Promise(setImmediate);
    stop();
    peer.say({ event: 'RESUME' });
    await new Promise(setImmediate);
    expect(seen).toEqual([
      { name: 'STOP', data: {} },
      { name: 'SHUTDOWN', data: { guest: true, reason: 'guest-reset' } },
    ]);
  });

  it('gives up at the deadline and at the signal', async () => {
    peer.answer = () => undefined;
    await expect(qmp.execute('stop', undefined, { timeoutMs: 5 })).rejects.toMatchObject({
      kind: 'deadline',
      message: 'QEMU: no answer to stop within 5 ms',
    });
    const abort = new AbortController();
    const asked = qmp.execute('stop', undefined, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(asked).rejects.toThrow('enough');
  });

  it('fails what waits, and all that comes later, when the connection ends', async () => {
    peer.answer = () => undefined;
    const asked = qmp.execute('cont');
    peer.stream.destroy();
    await expect(asked).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(qmp.execute('cont')).rejects.toMatchObject({ kind: 'unavailable' });
  });

  it.each([
    ['what is no JSON', 'nonsense\n'],
    ['an endless line', 'x'.repeat((1 << 20) + 1)],
  ])('ends the connection on %s', async (_, text) => {
    peer.say(text);
    await finished(peer.stream).catch(() => {});
    await expect(qmp.execute('cont')).rejects.toMatchObject({ kind: 'unavailable' });
  });
});

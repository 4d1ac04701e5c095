import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Logger } from '../../../src/log.ts';
import { makeFifos, openReader, type StdioPaths } from '../../../src/runtime/shim/fifos.ts';
import { LogFile } from '../../../src/runtime/shim/log-file.ts';
import { ContainerStdio } from '../../../src/runtime/shim/stdio.ts';
import { Poller } from '../../../src/sys/poller.ts';
import { eventually } from '../../support/eventually.ts';
import { parseLog } from '../../support/pods.ts';

let dir: string;
let poller: Poller;
let fifos: StdioPaths;
let stdio: ContainerStdio;
const warn = vi.fn();
const log = { warn } as unknown as Logger;
const logPath = () => path.join(dir, 'container.log');

beforeEach(async () => {
  warn.mockClear();
  dir = mkdtempSync(path.join(tmpdir(), 'berth-stdio-'));
  poller = new Poller();
  fifos = await makeFifos(path.join(dir, 'fifos'), { stdin: true, tty: false });
});
afterEach(async () => {
  await stdio?.close();
  await poller.close();
  rmSync(dir, { recursive: true });
});

const open = async () => {
  stdio = await ContainerStdio.open({ poller, log }, fifos, logPath());
  return stdio;
};
/** The shim's end of an output FIFO, as the shim opens it. */
const writer = (name: 'stdout' | 'stderr') => openSync(fifos[name] ?? '', constants.O_WRONLY);
const logged = (file = logPath()) => {
  const lines = parseLog(readFileSync(file));
  return lines.map(({ stream, tag, text }) => `${stream} ${tag} ${text}`);
};
/** A client's stream that keeps what it gets. */
function sink() {
  const got: Buffer[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      got.push(chunk);
      done();
    },
  });
  return { stream, said: () => Buffer.concat(got).toString() };
}

describe("a container's stdio", () => {
  it('goes to the log and to clients, and is complete at the end', async () => {
    await open();
    const [out, err] = [writer('stdout'), writer('stderr')];
    const [first, errors] = [sink(), sink()];
    const attachment = stdio.attach({ stdout: first.stream, stderr: errors.stream }, async () => {});
    writeSync(out, 'one\n');
    await eventually(() => expect(first.said()).toBe('one\n'));
    attachment.detach();
    writeSync(err, 'oops\n');
    writeSync(out, 'no end');
    closeSync(out);
    closeSync(err);
    await stdio.finish();
    expect(logged().sort()).toEqual(['stderr F oops', 'stdout F one', 'stdout P no end']);
    expect(first.said()).toBe('one\n');
    // Again says nothing, and who comes later is told that it is over.
    await stdio.finish();
    await stdio.attach({}, async () => {}).ended;
  });

  it('ends for clients when the container ends', async () => {
    await open();
    const { ended } = stdio.attach({}, async () => {});
    await stdio.finish();
    await ended;
  });

  it('is found again by a successor, when somebody kept the FIFOs open', async () => {
    await open();
    const keeper = [openReader(fifos.stdout), openReader(fifos.stderr ?? '')];
    const out = writer('stdout');
    writeSync(out, 'before\n');
    await eventually(() => expect(logged()).toEqual(['stdout F before']));
    await stdio.close();
    writeSync(out, 'meanwhile\n');
    closeSync(out);
    await open();
    await stdio.finish();
    expect(logged()).toEqual(['stdout F before', 'stdout F meanwhile']);
    for (const fd of keeper) closeSync(fd);
  });

  it('does not wait for ever for who holds the output open', async () => {
    await open();
    const held = writer('stdout');
    writeSync(held, 'said\n');
    await stdio.finish();
    expect(logged()).toEqual(['stdout F said']);
    closeSync(held);
  }, 15_000);

  it('takes input from clients, and tells the shim its end once', async () => {
    const stdin = openReader(fifos.stdin ?? '');
    await open();
    const closeStdin = vi.fn(async () => {});
    const attachment = stdio.attach({}, closeStdin);
    await new Promise((resolve) => attachment.write(Buffer.from('typed'), resolve));
    const got = Buffer.alloc(10);
    expect(got.toString('utf8', 0, readSync(stdin, got))).toBe('typed');
    expect(closeStdin).not.toHaveBeenCalled();
    attachment.endInput();
    await eventually(() => expect(closeStdin).toHaveBeenCalledTimes(1));
    closeSync(stdin);
  });

  it('drops input that nobody reads', async () => {
    await open();
    const attachment = stdio.attach({}, async () => {});
    await new Promise((resolve) => attachment.write(Buffer.from('typed'), resolve));
    attachment.detach();
  });
});

describe('the log file', () => {
  it('goes over to a new one when it was moved, and keeps one that was not', async () => {
    await open();
    const out = writer('stdout');
    writeSync(out, 'old\n');
    await eventually(() => expect(logged()).toHaveLength(1));
    await stdio.reopenLog();
    expect(logged()).toEqual(['stdout F old']);
    renameSync(logPath(), `${logPath()}.1`);
    await stdio.reopenLog();
    expect(readFileSync(logPath(), 'utf8')).toBe('');
    writeSync(out, 'new\n');
    closeSync(out);
    await stdio.finish();
    expect(logged()).toEqual(['stdout F new']);
    expect(logged(`${logPath()}.1`)).toEqual(['stdout F old']);
  });

  it('that cannot be written loses lines, says so once, and holds nobody up', async () => {
    const file = await LogFile.open('/dev/full', log);
    for (let i = 0; i < 3; i++) await file.append(Buffer.from('lost\n'));
    await file.close();
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it('that cannot be opened keeps the container from being made', async () => {
    const nowhere = path.join(dir, 'no', 'such', 'directory', 'log');
    await expect(ContainerStdio.open({ poller, log }, fifos, nowhere)).rejects.toThrow('ENOENT');
  });
});

import { closeSync, constants, openSync, read, writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isErrno } from '../../src/errors.ts';
import { mount, unmount } from '../../src/sys/mount.ts';

/** Request numbers and sizes of include/uapi/linux/fuse.h. */
const GETATTR = 3;
const INIT = 26;
const LOOKUP = 1;
const FORGET = 2;
const ENOSYS = 38;
const REQUEST_HEADER = 40;
const REPLY_HEADER = 16;
const BUFFER = 1 << 20;
const DIRECTORY = 0o40755;

/**
 * A file system whose server has died without closing its connection, as a dead NFS mount behaves: with
 * `answersRoot` its top directory can still be looked at and mounted. Whatever is asked below it waits for ever, and a
 * process that waits cannot be killed.
 */
export class DeadFileSystem {
  readonly #dir: string;
  readonly #fd: number;
  #closed = false;

  private constructor(dir: string, fd: number) {
    this.#dir = dir;
    this.#fd = fd;
  }

  /** Mounts it at an existing directory. */
  static mount(dir: string, options: { answersRoot: boolean }): DeadFileSystem {
    const fd = openSync('/dev/fuse', constants.O_RDWR | constants.O_NONBLOCK);
    const fs = new DeadFileSystem(dir, fd);
    mount('dead', dir, 'fuse', 0, `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other`);
    if (options.answersRoot) void fs.#serve();
    return fs;
  }

  /** Ends the connection: whoever waits gets an error. Repeatable. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
    unmount(this.#dir, { lazy: true });
  }

  async #serve(): Promise<void> {
    const buffer = Buffer.alloc(BUFFER);
    while (!this.#closed) {
      const size = await this.#read(buffer);
      if (size === 0) await delay(2);
      else this.#answer(buffer.subarray(0, size));
    }
  }

  /** Bytes of the next request; 0 when there is none now. */
  #read(buffer: Buffer): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#fd, buffer, 0, buffer.length, null, (e, size) => {
        if (e === null) resolve(size);
        else if (this.#closed || isErrno(e, 'EAGAIN', 'ENOENT', 'EINTR', 'ENODEV')) resolve(0);
        else reject(e);
      });
    });
  }

  #answer(request: Buffer): void {
    const opcode = request.readUInt32LE(4);
    const unique = request.readBigUInt64LE(8);
    if (opcode === LOOKUP || opcode === FORGET) return;
    if (opcode === INIT) this.#reply(unique, 0, initReply(request.subarray(REQUEST_HEADER)));
    else if (opcode === GETATTR) this.#reply(unique, 0, attributes());
    else this.#reply(unique, -ENOSYS, Buffer.alloc(0));
  }

  #reply(unique: bigint, error: number, body: Buffer): void {
    const header = Buffer.alloc(REPLY_HEADER);
    header.writeUInt32LE(REPLY_HEADER + body.length, 0);
    header.writeInt32LE(error, 4);
    header.writeBigUInt64LE(unique, 8);
    try {
      writeSync(this.#fd, Buffer.concat([header, body]));
    } catch (e: unknown) {
      // Whoever asked was interrupted meanwhile.
      if (!isErrno(e, 'ENOENT')) throw e;
    }
  }
}

/** fuse_init_out, with the kernel's own version and no extras. */
function initReply(request: Buffer): Buffer {
  const reply = Buffer.alloc(64);
  reply.writeUInt32LE(7, 0);
  reply.writeUInt32LE(request.readUInt32LE(4), 4);
  reply.writeUInt32LE(4096, 20);
  return reply;
}

/** fuse_attr_out of a directory, not to be remembered by the kernel. */
function attributes(): Buffer {
  const reply = Buffer.alloc(104);
  reply.writeBigUInt64LE(1n, 16);
  reply.writeUInt32LE(DIRECTORY, 16 + 60);
  reply.writeUInt32LE(2, 16 + 64);
  return reply;
}

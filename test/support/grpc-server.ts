import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ServerCall } from '../../cri/grpc/rpc.ts';
import { GrpcServer } from '../../cri/grpc/server.ts';
import type { Method } from '../../proto/codec.ts';
import { BerthError } from '../../src/errors.ts';

/** Where the methods of {@link ToyServer} are. */
export const SERVICE = '/test.Toy';

type Texts = ServerCall<string, string>;

/** A gRPC server of a test's own, whose messages are texts. */
export class ToyServer {
  readonly socket: string;
  readonly server = new GrpcServer();
  /** Signals of the calls of Hang, the newest last. */
  readonly hanging: AbortSignal[] = [];
  /** How many messages Count has handed over, all calls together. */
  counted = 0;
  /** Sum waits for it before each message. */
  gate: Promise<void> = Promise.resolve();
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
    this.socket = path.join(dir, 'sock');
    this.server.addService(
      {
        Echo: method('Echo'),
        Fail: method('Fail'),
        Hang: method('Hang'),
        Repeat: method('Repeat'),
        Count: method('Count', { responseStream: true }),
        Sum: method('Sum', { requestStream: true }),
      },
      {
        Echo: async (call: Texts) => call.send(await call.request()),
        // What it is sent is the message of its error, after one answer where the text asks for that.
        Fail: async (call: Texts) => {
          const text = await call.request();
          if (text.startsWith('late')) await call.send('one');
          throw new BerthError('notFound', text);
        },
        Hang: (call: Texts) => this.#hang(call),
        // `<times> <text>`
        Repeat: async (call: Texts) => {
          const [times, text = ''] = (await call.request()).split(' ');
          await call.send(text.repeat(Number(times)));
        },
        // So many messages of so many bytes.
        Count: async (call: Texts) => {
          const [times = 0, bytes = 0] = (await call.request()).split(' ').map(Number);
          for (let i = 0; i < times && !call.signal.aborted; i++) {
            await call.send(String(i).padEnd(bytes));
            this.counted++;
          }
        },
        Sum: async (call: Texts) => {
          let length = 0;
          for await (const text of call.requests()) {
            await this.gate;
            length += text.length;
          }
          await call.send(String(length));
        },
      },
    );
  }

  static async start(): Promise<ToyServer> {
    const toy = new ToyServer(await mkdtemp(path.join(tmpdir(), 'berth-grpc-')));
    await toy.server.listen(toy.socket);
    return toy;
  }

  async close(): Promise<void> {
    await this.server.close(0);
    await rm(this.#dir, { recursive: true });
  }

  #hang(call: Texts): Promise<void> {
    const { promise, reject } = Promise.withResolvers<void>();
    call.signal.addEventListener('abort', () => reject(call.signal.reason));
    this.hanging.push(call.signal);
    return promise;
  }
}

function method(name: string, streams: { requestStream?: boolean; responseStream?: boolean } = {}): Method {
  // Messages are texts here, and objects for others.
  const serialize = (message: unknown) => Buffer.from(String(message));
  const deserialize = (bytes: Buffer) => {
    if (bytes[0] === 0xff) throw new Error('no text begins so');
    return String(bytes) as unknown as object;
  };
  return {
    ...{ path: `${SERVICE}/${name}`, requestStream: false, responseStream: false, ...streams },
    ...{ requestSerialize: serialize, requestDeserialize: deserialize },
    ...{ responseSerialize: serialize, responseDeserialize: deserialize },
  };
}

import { credentials, Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import { loadProtos } from '../../proto/load.ts';

const DEADLINE_MS = 60_000;

/** Calls that answer in bytes: decoding in this process would take longer than the daemon does to answer. */
export class RawClient {
  readonly #grpc: GrpcClient;
  readonly #methods = loadProtos().runtimeService as unknown as Record<
    string,
    MethodDefinition<object, unknown>
  >;

  /** @param endpoint `unix:///path` */
  constructor(endpoint: string) {
    this.#grpc = new GrpcClient(endpoint.replace('unix://', 'unix:'), credentials.createInsecure(), {
      'grpc.max_receive_message_length': -1,
      'grpc.default_authority': 'localhost',
    });
  }

  /** @returns how long the call took, milliseconds */
  async time(method: string, request: object): Promise<number> {
    const definition = this.#methods[method];
    if (definition === undefined) throw new Error(`CRI has no ${method}`);
    const began = performance.now();
    await new Promise<Buffer>((resolve, reject) => {
      this.#grpc.makeUnaryRequest(
        definition.path,
        definition.requestSerialize,
        (bytes: Buffer) => bytes,
        request,
        new Metadata(),
        { deadline: Date.now() + DEADLINE_MS },
        (e, bytes) => (e === null && bytes !== undefined ? resolve(bytes) : reject(e)),
      );
    });
    return performance.now() - began;
  }

  close(): void {
    this.#grpc.close();
  }
}

import { connect } from 'node:net';
import {
  type CallOptions,
  credentials,
  Client as GrpcClient,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import { loadProtos, type Protos } from '../../proto/load.ts';
import { BerthError, type ErrorKind, isErrno } from '../errors.ts';
import { UnreachableError, UsageError } from './errors.ts';

type Runtime = Protos['runtimeService'];
type Image = Protos['imageService'];
type Node = Protos['node'];
type RequestOf<M> = M extends { requestSerialize: (message: infer I) => Buffer } ? I : never;
type ResponseOf<M> = M extends { responseDeserialize: (bytes: Buffer) => infer O } ? O : never;
/** Without the index signature that grpc-js puts beside the methods. */
type Methods<D> = keyof { [K in keyof D as string extends K ? never : K]: D[K] };
/** Names of the calls with one answer; the others would need another method of the client. */
type Unary<D> = Exclude<Extract<Methods<D>, string>, `Stream${string}` | 'GetContainerEvents'>;
/** A method as the calls below need it; TypeScript does not follow the inferred types through a key. */
type Method<I, O> = Pick<
  MethodDefinition<I, unknown, unknown, O>,
  'path' | 'requestSerialize' | 'responseDeserialize'
>;

/** How one call differs from the usual. */
export interface CallSettings {
  /** Milliseconds; 0: no deadline. Default: the client's. A time that the user chose wins over both. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** Where the daemon listens, and how long a call may take. */
export interface ClientOptions {
  /** Of the form `unix:///path`; a bare absolute path is taken for one. */
  endpoint: string;
  /** Milliseconds that the user chose for every call, if any. */
  timeoutMs?: number;
  /** Ends every call in flight. */
  signal: AbortSignal;
}

/** What the kubelet gives an ordinary call, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 120_000;
/** CRI's agreed message size; gRPC's default of 4 MiB is less than a list on a busy node. */
const MAX_MESSAGE = 16 << 20;
/** A daemon that accepts connections within this is there, and its refusal another matter. */
const PROBE_MS = 2_000;

/** The kinds in which gRPC's codes come back; the other direction is the daemon's. */
const KINDS: ReadonlyMap<number, ErrorKind> = new Map<number, ErrorKind>([
  [status.INVALID_ARGUMENT, 'invalid'],
  [status.NOT_FOUND, 'notFound'],
  [status.ALREADY_EXISTS, 'alreadyExists'],
  [status.FAILED_PRECONDITION, 'precondition'],
  [status.UNAVAILABLE, 'unavailable'],
  [status.DEADLINE_EXCEEDED, 'deadline'],
  [status.CANCELLED, 'cancelled'],
  [status.UNIMPLEMENTED, 'unimplemented'],
  [status.RESOURCE_EXHAUSTED, 'exhausted'],
  [status.PERMISSION_DENIED, 'permission'],
  [status.UNAUTHENTICATED, 'permission'],
]);

/**
 * The absolute path of a unix socket in the spellings that CRI tools accept.
 *
 * @throws UsageError
 */
export function socketPath(endpoint: string): string {
  const path = endpoint.replace(/^unix:(\/\/)?/, '');
  if (path.startsWith('/')) return path;
  throw new UsageError(`--endpoint ${endpoint}: must be a unix socket such as unix:///run/berth/berth.sock`);
}

/**
 * Calls of one CRI daemon. Calls fail with a BerthError of the kind that the daemon answered with, or an
 * UnreachableError when nothing listens.
 */
export class Client {
  readonly #options: ClientOptions;
  readonly #socket: string;
  readonly #protos: Protos;
  readonly #grpc: GrpcClient;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#socket = socketPath(options.endpoint);
    this.#protos = loadProtos();
    this.#grpc = new GrpcClient(`unix:${this.#socket}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.max_send_message_length': MAX_MESSAGE,
      'grpc.enable_http_proxy': 0,
      'grpc.default_authority': 'localhost',
      // As the kubelet's: a socket on this machine is back as soon as its daemon is.
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 3_000,
    });
  }

  /** Calls a method of CRI's RuntimeService. */
  runtime<K extends Unary<Runtime>>(
    method: K,
    request: RequestOf<Runtime[K]>,
    settings?: CallSettings,
  ): Promise<ResponseOf<Runtime[K]>> {
    const definition = this.#protos.runtimeService[method] as unknown as Method<
      RequestOf<Runtime[K]>,
      ResponseOf<Runtime[K]>
    >;
    return this.#unary(definition, request, settings);
  }

  /** Calls a method of CRI's ImageService. */
  image<K extends Unary<Image>>(
    method: K,
    request: RequestOf<Image[K]>,
    settings?: CallSettings,
  ): Promise<ResponseOf<Image[K]>> {
    const definition = this.#protos.imageService[method] as unknown as Method<
      RequestOf<Image[K]>,
      ResponseOf<Image[K]>
    >;
    return this.#unary(definition, request, settings);
  }

  /** What images take of the disk. @throws BerthError unimplemented from daemons that are not berthd */
  diskUsage(): Promise<ResponseOf<Node['DiskUsage']>> {
    return this.#unary(this.#protos.node.DiskUsage, {});
  }

  /** Removes garbage and, on request, unused images. @throws BerthError unimplemented from daemons that are not berthd */
  collectGarbage(request: { images: boolean }): Promise<ResponseOf<Node['CollectGarbage']>> {
    return this.#unary(this.#protos.node.CollectGarbage, request, { timeoutMs: 0 });
  }

  /** berth's own service. @throws BerthError unimplemented from daemons that are not berthd */
  info(): Promise<ResponseOf<Node['Info']>> {
    return this.#unary(this.#protos.node.Info, {});
  }

  /** berth's own pull, whose answers tell of each layer and end with the result. */
  pullImage(request: RequestOf<Node['PullImage']>): AsyncGenerator<ResponseOf<Node['PullImage']>> {
    return this.#stream(this.#protos.node.PullImage, request);
  }

  /** An archive of images, piece by piece. @throws BerthError unimplemented from daemons that are not berthd */
  async *exportImages(images: string[]): AsyncGenerator<Buffer> {
    for await (const { chunk } of this.#stream(this.#protos.node.ExportImages, { images })) yield chunk;
  }

  /** Sends an archive of images in pieces, no faster than the daemon takes them. */
  async importImage(
    parts: AsyncIterable<RequestOf<Node['ImportImage']>>,
  ): Promise<ResponseOf<Node['ImportImage']>> {
    const method = this.#protos.node.ImportImage;
    const answer = Promise.withResolvers<ResponseOf<Node['ImportImage']>>();
    const limit = this.#limit({ timeoutMs: 0 });
    const call = this.#grpc.makeClientStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      new Metadata(),
      callOptions(limit),
      (error, response) => (error ? answer.reject(error) : response && answer.resolve(response)),
    );
    const stop = () => call.cancel();
    this.#options.signal.addEventListener('abort', stop, { once: true });
    const ended = answer.promise.then(
      () => true,
      () => true,
    );
    try {
      for await (const part of parts) {
        const taken = new Promise<boolean>((resolve) => call.write(part, () => resolve(false)));
        // A daemon that refuses the archive ends the call without taking the rest.
        if (await Promise.race([taken, ended])) break;
      }
      call.end();
      return await answer.promise;
    } catch (e: unknown) {
      throw await this.#explain(e, limit);
    } finally {
      this.#options.signal.removeEventListener('abort', stop);
      call.cancel();
    }
  }

  /** Another client of the daemon that no Ctrl-C ends, for undoing what was begun. Close it too. */
  uninterrupted(): Client {
    return new Client({ ...this.#options, signal: new AbortController().signal });
  }

  /** Ends the connection. */
  close(): void {
    this.#grpc.close();
  }

  /** A call with many answers and no deadline but the user's. */
  async *#stream<I, O>(method: Method<I, O>, request: I): AsyncGenerator<O> {
    const limit = this.#limit({ timeoutMs: 0 });
    const { path, requestSerialize, responseDeserialize } = method;
    const call = this.#grpc.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
      callOptions(limit),
    );
    const stop = () => call.cancel();
    this.#options.signal.addEventListener('abort', stop, { once: true });
    try {
      yield* call as AsyncIterable<O>;
    } catch (e: unknown) {
      throw await this.#explain(e, limit);
    } finally {
      this.#options.signal.removeEventListener('abort', stop);
      call.cancel();
    }
  }

  #unary<I, O>(method: Method<I, O>, request: I, settings: CallSettings = {}): Promise<O> {
    const signals = settings.signal ? [this.#options.signal, settings.signal] : [this.#options.signal];
    const signal = AbortSignal.any(signals);
    if (signal.aborted) return Promise.reject(new BerthError('cancelled', 'interrupted'));
    const limit = this.#limit(settings);
    return new Promise<O>((resolve, reject) => {
      const stop = () => call.cancel();
      const call = this.#grpc.makeUnaryRequest<I, O>(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        new Metadata(),
        callOptions(limit),
        (error, response) => {
          signal.removeEventListener('abort', stop);
          if (error === null && response !== undefined) resolve(response);
          else this.#explain(error, limit).then(reject, reject);
        },
      );
      signal.addEventListener('abort', stop, { once: true });
    });
  }

  #limit(settings: CallSettings): Limit | undefined {
    const ms = this.#options.timeoutMs ?? settings.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    return ms === 0 ? undefined : { ms, deadline: Date.now() + ms };
  }

  async #explain(e: unknown, limit: Limit | undefined): Promise<unknown> {
    if (!isServiceError(e)) return e;
    // Before our own deadline it is the daemon that gave something up, and says what.
    if (e.code === status.DEADLINE_EXCEEDED && limit !== undefined && Date.now() >= limit.deadline) {
      const text = `no answer within ${limit.ms / 1000} s; --timeout says how long to wait`;
      return new BerthError('deadline', text, { cause: e });
    }
    // UNAVAILABLE is also what a daemon answers whose registry or network is down.
    if (e.code === status.UNAVAILABLE) {
      const refusal = await probe(this.#socket);
      if (refusal !== undefined) return new UnreachableError(this.#options.endpoint, refusal);
    }
    return new BerthError(KINDS.get(e.code) ?? 'internal', e.details || e.message, { cause: e });
  }
}

/** How long a call may take. */
interface Limit {
  ms: number;
  /** Milliseconds since the epoch. */
  deadline: number;
}

function callOptions(limit: Limit | undefined): CallOptions {
  return limit === undefined ? {} : { deadline: limit.deadline };
}

function isServiceError(e: unknown): e is ServiceError {
  return e instanceof Error && 'details' in e && 'code' in e && typeof e.code === 'number';
}

/** Why nothing answers at the socket, or undefined when something accepts connections. */
function probe(socket: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    const done = (reason: string | undefined) => {
      connection.destroy();
      resolve(reason);
    };
    connection.setTimeout(PROBE_MS, () => done('it accepts no connection'));
    connection.once('connect', () => done(undefined));
    connection.once('error', (e: unknown) => done(reasonOf(e)));
  });
}

function reasonOf(e: unknown): string {
  if (isErrno(e, 'ENOENT')) return 'there is no such socket';
  if (isErrno(e, 'ECONNREFUSED')) return 'nothing listens on the socket';
  if (isErrno(e, 'EACCES', 'EPERM')) return 'this user may not open the socket';
  return e instanceof Error ? e.message : String(e);
}

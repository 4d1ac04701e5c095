import { Client } from '../../src/cli/client.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { until } from '../support/pods.ts';
import type { Account } from './account.ts';
import { BENCH_LABEL, type LivePod } from './pods.ts';

/** A daemon as the bench needs it; one that cannot be restarted is somebody else's. */
export interface Daemon {
  readonly endpoint: string;
  readonly cgroupParent: string;
  /** @throws Error when it does not run */
  readonly pid: number;
  start?(): Promise<void>;
  stop?(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Ends it and removes all that it had. @returns what was left behind */
  close(): Promise<string[]>;
}

/** What a {@link Subject} is made of. */
export interface SubjectParts {
  name: string;
  daemon: Daemon;
  account: Account;
  /** The pods' image; default: the tests' busybox. */
  image?: string;
  /** Where pods have their logs and volumes. */
  directory: string;
  /** Ends calls in flight, but not the cleaning up. */
  signal: AbortSignal;
}

/** One of the daemons that are compared. */
export class Subject {
  readonly name: string;
  readonly account: Account;
  readonly image: string;
  readonly directory: string;
  /** Those that run while the measures of a populated node are taken. */
  readonly pods: LivePod[] = [];
  readonly #daemon: Daemon;
  readonly #signal: AbortSignal;
  #client: Client;

  constructor({ name, daemon, account, image, directory, signal }: SubjectParts) {
    this.name = name;
    this.account = account;
    this.image = image ?? BUSYBOX;
    this.directory = directory;
    this.#daemon = daemon;
    this.#signal = signal;
    this.#client = this.#connect(signal);
  }

  get client(): Client {
    return this.#client;
  }

  get endpoint(): string {
    return this.#daemon.endpoint;
  }

  get cgroupParent(): string {
    return this.#daemon.cgroupParent;
  }

  /** Of the daemon. @throws Error when it does not run */
  get pid(): number {
    return this.#daemon.pid;
  }

  get restartable(): boolean {
    return this.#daemon.start !== undefined;
  }

  /** `name version`, as the daemon says. */
  async version(): Promise<string> {
    const { runtime_name, runtime_version } = await this.client.runtime('Version', {});
    return `${runtime_name} ${runtime_version}`;
  }

  /** @returns milliseconds from the spawn to the first answer */
  async start(): Promise<number> {
    const began = performance.now();
    await this.#daemon.start?.();
    const took = performance.now() - began;
    // A client whose daemon was away waits a second before it looks again.
    this.#client.close();
    this.#client = this.#connect(this.#signal);
    await this.account.place(this.#daemon.pid);
    return took;
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await this.#daemon.stop?.(signal);
  }

  /** Removes the bench's pods, ends a daemon that is the bench's. @returns what was left behind */
  async close(): Promise<string[]> {
    this.#client.close();
    const left: string[] = [];
    await this.#removePods().catch((e: unknown) => left.push(`pods: ${String(e)}`));
    left.push(...(await this.#daemon.close()));
    await this.account.close();
    return left.map((line) => `${this.name}: ${line}`);
  }

  async #removePods(): Promise<void> {
    if (!this.#runs()) await this.#daemon.start?.();
    const client = this.#connect(new AbortController().signal);
    try {
      const request = { filter: { label_selector: BENCH_LABEL } };
      // One that has just been started may refuse while it recovers.
      const { items } = await until('the pods are listed', () =>
        client.runtime('ListPodSandbox', request).catch(() => undefined),
      );
      for (const { id } of items) {
        await client.runtime('StopPodSandbox', { pod_sandbox_id: id });
        await client.runtime('RemovePodSandbox', { pod_sandbox_id: id });
      }
    } finally {
      client.close();
    }
  }

  #runs(): boolean {
    try {
      return this.#daemon.pid > 0;
    } catch {
      return false;
    }
  }

  #connect(signal: AbortSignal): Client {
    return new Client({ endpoint: this.#daemon.endpoint, signal });
  }
}

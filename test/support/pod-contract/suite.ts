import { Berthd } from '../berthd.ts';
import { busyboxArchive } from '../busybox.ts';
import { IDLE, importArchive, OWN_PID, type Pod, Pods, SHARED_PID, sh } from '../pods.ts';
import type { PodHandler } from './handler.ts';

/** An image with everything in its configuration; it stops on SIGUSR1. */
export const FULL_IMAGE = 'localhost/berth-test/full:1';
const FULL = {
  Entrypoint: ['/bin/echo', 'entry'],
  Env: ['PATH=/bin', 'FROM=image', 'BOTH=image'],
  WorkingDir: '/tmp',
  User: 'app',
  StopSignal: 'SIGUSR1',
};

/** How the pod that most assertions are about is named, and what it brings. */
export const POD = {
  hostname: 'some-pod',
  labels: { app: 'web', odd: 'ünïcode ☃ "quoted"\n' },
  annotations: { 'kubernetes.io/config.seen': '2026-01-02T03:04:05Z', empty: '' },
  dns_config: { servers: ['192.0.2.53'], searches: ['ns.svc.cluster.local'], options: ['ndots:5'] },
};

/** What the tests of one handler share: making a pod may mean to boot a machine. */
export class Suite {
  readonly handler: PodHandler;
  berthd!: Berthd;
  pods!: Pods;
  /** Lives through all tests, as its two containers do, which do nothing. */
  pod!: Pod;
  one!: string;
  two!: string;
  #second: Promise<Pod> | undefined;

  constructor(handler: PodHandler) {
    this.handler = handler;
  }

  async start(): Promise<void> {
    await this.handler.prepare?.();
    this.berthd = await Berthd.start({ tables: this.handler.tables });
    await this.berthd.importBusybox();
    await importArchive(this.berthd, await busyboxArchive(FULL_IMAGE, ['cmd'], FULL));
    this.pods = new Pods(this.berthd);
    const cgroup_parent = `${this.berthd.cgroupParent}/pod`;
    const sysctls = { 'net.ipv4.ip_local_port_range': '20000 20999' };
    const linux = { cgroup_parent, sysctls, security_context: OWN_PID };
    this.pod = await this.pods.run({ ...POD, linux }, this.handler.name);
    this.one = await this.pods.start(this.pod);
    this.two = await this.pods.start(this.pod, {
      ...IDLE,
      envs: [{ key: 'ANSWER', value: Buffer.from('42') }],
    });
  }

  /** One PID namespace for its containers, which may be privileged; made when the first test asks. */
  second(): Promise<Pod> {
    const security_context = { ...SHARED_PID, privileged: true };
    const linux = { cgroup_parent: `${this.berthd.cgroupParent}/second`, security_context };
    this.#second ??= this.pods.run({ linux }, this.handler.name);
    return this.#second;
  }

  /** What a script in a container of its own prints, errors too: two streams would come in any order. */
  async prints(script: string, more: Parameters<typeof sh>[1] = {}, pod = this.pod): Promise<string> {
    return (await this.pods.runToEnd(pod, sh(`exec 2>&1; ${script}`, more))).log.trim();
  }
}

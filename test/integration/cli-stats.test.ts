import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { BERTH, start } from '../support/cli.ts';
import { OWN_PID, type Pod, Pods, sh, until } from '../support/pods.ts';
import { inTerminal, modesIn, type Typist } from '../support/terminal.ts';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;
let id: string;

const berth = (...args: string[]) => start(berthd.endpoint, args, '', [BERTH]);
const MEMORY = 64 << 20;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
  pod = await pods.run({ linux: { cgroup_parent: `${berthd.cgroupParent}/pod` } });
  const resources = { memory_limit_in_bytes: MEMORY, cpu_quota: 50_000, cpu_period: 100_000 };
  id = await pods.start(
    pod,
    sh('dd if=/dev/zero bs=20M count=1 2>/dev/null | sleep 100000', {
      metadata: { name: 'holder', attempt: 0 },
      linux: { resources, security_context: OWN_PID },
    }),
  );
  await pods.start(pod, sh('exec sleep 100000', { metadata: { name: 'sleeper', attempt: 0 } }));
  await until('memory is in use', async () => {
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: id });
    return Number(stats?.memory?.working_set_bytes?.value) > 20 << 20;
  });
});
afterAll(async () => expect(await berthd?.close()).toEqual([]));

describe('berth top', () => {
  const env = () => ({ ...process.env, BERTH_ENDPOINT: berthd.endpoint, TERM: 'xterm', NO_COLOR: '1' });

  it('without a terminal is one look as text', async () => {
    for (const args of [['top'], ['top', '--once', '--sort', 'memory']]) {
      const { code, stdout, stderr } = await berth(...args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^2 containers, 1 pods {3}CPU \d/);
      expect(stdout).toMatch(/default\/pod-\w+ +holder +.*2\d\.\d MiB {2}\|{3,4} +3\d%/);
      expect(stdout).not.toContain('\u001b');
    }
    const filtered = await berth('top', 'sleeper');
    expect(filtered.stdout).toMatch(/^1 of 2 containers/);
    expect(filtered.stdout).not.toContain('holder');
    expect(await berth('top', '-o', 'json')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('stats -o json'),
    });
    expect(await berth('top', '--interval', '1ms')).toMatchObject({ code: 2 });
  });

  it('takes the terminal over, follows keys and its size, and gives it back', async () => {
    const steps: [RegExp, (t: Typist) => unknown][] = [
      [/NAME.*holder.*sleeper.*q quit/s, (t) => t.write('r')],
      [/sleeper[\s\S]*holder[\s\S]*q quit/, (t) => t.write('/hold')],
      [/filter: hold_/, (t) => t.write('\r')],
      [/filter: hold \(Esc/, (t) => t.resize(12, 60)],
      // Narrower: without the CPU bar and what tasks wait for.
      [/POD +NAME +CPU +MEMORY +OF LIMIT *\W\[K/, (t) => t.write('\u001b')],
      [/2 containers/, (t) => t.write('q')],
    ];
    let at = 0;
    const shown = await inTerminal(
      `stty -g; ${BERTH} top --sort name; echo "status $?"; stty -g`,
      env(),
      (typist) => {
        const [wanted, act] = steps[0] ?? [];
        if (wanted === undefined || !wanted.test(typist.shown.slice(at))) return;
        at = typist.shown.length;
        steps.shift();
        void act?.(typist);
      },
    );
    expect(steps).toEqual([]);
    expect(shown).toContain('status 0');
    // What was on the screen comes back, with its cursor.
    expect(shown.indexOf('\u001b[?1049h')).toBeGreaterThan(0);
    expect(shown.lastIndexOf('\u001b[?25h\u001b[?1049l')).toBeGreaterThan(shown.lastIndexOf('q quit'));
    const modes = modesIn(shown);
    expect(modes).toHaveLength(2);
    expect(modes[0]).toBe(modes[1]);
  });

  it.each<[NodeJS.Signals, number]>([
    ['SIGTERM', 130],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ])('gives the terminal back when it is ended by %s', async (signal, status) => {
    let sent = false;
    const script = `stty -g; sh -c 'echo "pid $$."; exec ${BERTH} top'; echo "status $?"; stty -g`;
    const shown = await inTerminal(script, env(), (typist) => {
      if (sent || !typist.shown.includes('q quit')) return;
      sent = true;
      process.kill(Number(/pid (\d+)\./.exec(typist.shown)?.[1]), signal);
    });
    expect(shown).toContain(`status ${status}`);
    expect(shown.lastIndexOf('\u001b[?25h\u001b[?1049l')).toBeGreaterThan(shown.lastIndexOf('q quit'));
    const modes = modesIn(shown);
    expect(modes).toHaveLength(2);
    expect(modes[0]).toBe(modes[1]);
  });

  it('keeps the last figures while the daemon is away', async () => {
    let stage = 0;
    const shown = await inTerminal(`${BERTH} top --interval 200ms`, env(), async (typist) => {
      if (stage === 0 && typist.shown.includes('q quit')) {
        stage = 1;
        await berthd.stop();
      } else if (stage === 1 && /no daemon answers[\s\S]*holder/.test(typist.shown)) {
        stage = 2;
        typist.write('q');
      }
    });
    expect(stage).toBe(2);
    expect(shown).toContain('no daemon answers');
    await berthd.start();
  });
});

describe('berth inspect --cgroup', () => {
  it('prints a container’s cgroup, and the pod’s, as the kernel has them', async () => {
    const { cgroup } = await pods.info('container', id);
    const { code, stdout } = await berth('inspect', '--cgroup', id.slice(0, 20));
    expect(code).toBe(0);
    const of = JSON.parse(stdout);
    expect(of).toMatchObject({ kind: 'container', id, path: cgroup });
    const directory = of.directories.find((d: { directory: string }) => d.directory.includes('/memory/'));
    expect(directory.directory).toBe(`/sys/fs/cgroup/memory${cgroup}`);
    expect(directory.files['memory.limit_in_bytes']).toBe(String(MEMORY));
    expect(directory.files['memory.stat']).toMatch(/^cache \d+\nrss \d+/);
    expect(directory.files['cgroup.procs']).toBe(
      readFileSync(`${directory.directory}/cgroup.procs`, 'utf8').trim(),
    );
    expect(Object.keys(directory.files)).not.toContain('cgroup.event_control');
    const whole = JSON.parse((await berth('inspect', '--cgroup', pod.id)).stdout);
    expect(whole).toMatchObject({ kind: 'pod', path: `${berthd.cgroupParent}/pod` });
  });

  it('says when there is none', async () => {
    const { id: ended } = await pods.runToEnd(pod, sh('exit 0'));
    await until('it is cleared up', async () => (await berth('inspect', '--cgroup', ended)).code !== 0);
    const { code, stderr } = await berth('inspect', '--cgroup', ended);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^berth: .*has no cgroup \//)]);
    expect((await berth('inspect', '--cgroup', 'nothing')).code).toBe(3);
  });
});

import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Series } from '../../../src/metrics/collect.ts';
import { CONTENT_TYPE, expose } from '../../../src/metrics/exposition.ts';
import { Counter, Histogram } from '../../../src/metrics/instruments.ts';
import { PodsText } from '../../../src/metrics/pods-text.ts';
import { MetricsServer } from '../../../src/metrics/server.ts';
import { eventually } from '../../support/eventually.ts';

const quiet = { info: vi.fn(), error: vi.fn() };
const log = quiet as never;

describe('the text format', () => {
  it('has help, type and a line for each value, with what labels may not hold escaped', () => {
    expect(
      expose([
        {
          ...{ name: 'a_total', help: 'One\nline with \\.', type: 'counter' },
          lines: [{ value: 1.5 }, { labels: { x: 'q"\\\n', y: 'ä' }, value: 2 ** 53 }],
        },
        { name: 'b', help: 'None.', type: 'gauge', lines: [] },
      ]),
    ).toBe(`# HELP a_total One\\nline with \\\\.
# TYPE a_total counter
a_total 1.5
a_total{x="q\\"\\\\\\n",y="ä"} 9007199254740992
# HELP b None.
# TYPE b gauge
`);
  });

  it('counts into buckets each of which holds those before', () => {
    const histogram = new Histogram('h_seconds', 'H.', 'rpc', [0.1, 1]);
    for (const value of [0.1, 0.5, 0.5, 7]) histogram.observe('A', value);
    expect(expose([histogram.read()])).toBe(`# HELP h_seconds H.
# TYPE h_seconds histogram
h_seconds_bucket{rpc="A",le="0.1"} 1
h_seconds_bucket{rpc="A",le="1"} 3
h_seconds_bucket{rpc="A",le="+Inf"} 4
h_seconds_sum{rpc="A"} 8.1
h_seconds_count{rpc="A"} 4
`);
  });

  it('has a counter without labels from the start, one with labels from its first increase', () => {
    const [bare, labelled] = [new Counter('a_total', 'A.'), new Counter('b_total', 'B.', ['x', 'y'])];
    expect([bare.read().lines, labelled.read().lines]).toEqual([[{ labels: {}, value: 0 }], []]);
    bare.increase();
    labelled.increase('1', '2');
    labelled.increase('1', '2');
    expect([bare.read().lines, labelled.read().lines]).toEqual([
      [{ labels: {}, value: 1 }],
      [{ labels: { x: '1', y: '2' }, value: 2 }],
    ]);
  });

  it('has the series of pods with fractions of seconds, each family once', () => {
    const series = (name: string): Series => ({
      base: ['/p', name, '', 'POD', 'web', 'default'],
      timestampNs: 1n,
      measured: {
        startedAt: 1_500_000_000n,
        interfaces: [
          {
            ...{ name: 'eth0', rxBytes: 2n ** 63n, rxPackets: 0n, rxErrors: 0n, rxDropped: 0n },
            ...{ txBytes: 0n, txPackets: 0n, txErrors: 0n, txDropped: 0n },
          },
        ],
        deviceName: () => '',
      },
    });
    const pods = new PodsText();
    pods.add({ sandboxId: 's', pod: [series('a'), series('b')], containers: [] });
    const text = Buffer.concat(pods.take()).toString();
    const lines = text.split('\n');
    expect(lines.filter((line) => line.startsWith('# TYPE'))).toHaveLength(9);
    const labels = (name: string) =>
      `id="/p",name="${name}",image="",container="POD",pod="web",namespace="default"`;
    expect(lines).toContain(`container_start_time_seconds{${labels('a')}} 1.5`);
    expect(lines).toContain(
      `container_network_receive_bytes_total{${labels('b')},interface="eth0"} 9223372036854775808`,
    );
  });
});

describe('MetricsServer', () => {
  let server: MetricsServer | undefined;
  afterEach(async () => {
    await server?.close();
    vi.clearAllMocks();
  });
  const start = async (read: () => Promise<Buffer>) => {
    server = await MetricsServer.listen({ address: '127.0.0.1', port: 0 }, read, log);
    const [said] = quiet.info.mock.calls[0] ?? [];
    return `http://127.0.0.1:${(said as { port: number } | undefined)?.port}`;
  };

  it('answers /metrics, compressed for who takes it, and nothing else', async () => {
    const text = 'a 1\n'.repeat(10_000);
    const base = await start(async () => Buffer.from(text));
    const plain = await fetch(`${base}/metrics`, { headers: { 'accept-encoding': 'identity' } });
    expect([plain.status, plain.headers.get('content-type')]).toEqual([200, CONTENT_TYPE]);
    expect(await plain.text()).toBe(text);
    const zipped = await fetch(`${base}/metrics?x=1`, { headers: { 'accept-encoding': 'gzip' } });
    expect(zipped.headers.get('content-encoding')).toBe('gzip');
    expect(await zipped.text()).toBe(text);
    expect((await fetch(`${base}/`)).status).toBe(404);
    expect((await fetch(`${base}/metrics`, { method: 'POST' })).status).toBe(405);
  });

  it('collects once for scrapes that overlap', async () => {
    const gate = Promise.withResolvers<Buffer>();
    const read = vi.fn(() => gate.promise);
    const base = await start(read);
    const scrapes = [fetch(`${base}/metrics`)];
    await eventually(() => expect(read).toHaveBeenCalled());
    scrapes.push(fetch(`${base}/metrics`));
    // Once a request that came later has been answered, this one is being waited for.
    await fetch(`${base}/other`);
    gate.resolve(Buffer.from('a 1\n'));
    for (const scrape of scrapes) expect(await (await scrape).text()).toBe('a 1\n');
    expect(read).toHaveBeenCalledTimes(1);
  });

  it('says in the log what went wrong, and to the caller that something did', async () => {
    const base = await start(() => Promise.reject(new Error('secret place')));
    const answer = await fetch(`${base}/metrics`);
    expect(answer.status).toBe(500);
    expect(await answer.text()).not.toContain('secret');
    expect(quiet.error).toHaveBeenCalledWith({ reason: 'secret place' }, expect.any(String));
  });

  it('refuses an address that is taken, and lets go of it when closed', async () => {
    const base = await start(async () => Buffer.alloc(0));
    const port = Number(new URL(base).port);
    await expect(
      MetricsServer.listen({ address: '127.0.0.1', port }, async () => Buffer.alloc(0), log),
    ).rejects.toThrow(/metrics server: .*EADDRINUSE/);
    await Promise.all([server?.close(), server?.close()]);
    await expect(fetch(`${base}/metrics`)).rejects.toThrow();
  });
});

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Events } from '../../../src/events/events.ts';
import { DaemonMetrics } from '../../../src/metrics/daemon.ts';
import { fakeServices } from '../recover/services.ts';

let fake: ReturnType<typeof fakeServices>;
let metrics: DaemonMetrics;
beforeEach(() => {
  fake = fakeServices();
  metrics = new DaemonMetrics(true);
});
afterEach(() => {
  metrics.close();
  fake.close();
});

/** All lines as `name{labels}` → value. */
async function read() {
  const s = Object.assign(
    {
      events: new Events(fake.s.sandboxes, fake.s.containers),
      cni: { status: async () => ({ ready: true, message: '' }) },
      images: {
        list: () => [1, 2, 3],
        fsInfo: () => ({ usedBytes: 5n }),
        activity: () => ({ downloads: 1, unpackings: 2, downloadedBytes: 3n, unpackedBytes: 4n }),
      },
    },
    fake.s,
  );
  const all = await metrics.read(s as never, { rounds: 4, seconds: 0.25, cgroups: 7 });
  return new Map(
    all.flatMap(({ name, lines }) =>
      lines.map(({ suffix = '', labels = {}, value }) => {
        const text = Object.entries(labels).map(([k, v]) => `${k}=${v}`);
        return [`${name}${suffix}{${text.join()}}`, value] as const;
      }),
    ),
  );
}

describe('DaemonMetrics', () => {
  it('counts calls by method: how long, how many now, and which failed how', async () => {
    metrics.rpc('Version')('OK');
    const running = metrics.rpc('PullImage');
    metrics.rpc('PullImage')('NOT_FOUND');
    let got = await read();
    expect(got.get('berth_rpc_duration_seconds_count{rpc=Version}')).toBe(1);
    expect(got.get('berth_rpc_duration_seconds_bucket{rpc=Version,le=+Inf}')).toBe(1);
    expect(got.get('berth_rpcs_in_flight{rpc=PullImage}')).toBe(1);
    expect(got.get('berth_rpc_errors_total{rpc=PullImage,code=NOT_FOUND}')).toBe(1);
    expect(got.has('berth_rpc_errors_total{rpc=Version,code=OK}')).toBe(false);
    running('OK');
    got = await read();
    expect(got.get('berth_rpcs_in_flight{rpc=PullImage}')).toBe(0);
    expect(got.get('berth_rpc_duration_seconds_count{rpc=PullImage}')).toBe(2);
  });

  it('counts what there is by state, and what could not be taken down', async () => {
    const exit = { code: 0, finishedAt: 9n, reason: 'Completed', message: '' };
    fake.addSandbox();
    fake.addSandbox({ id: 'old', stoppedAt: 1n });
    fake.addSandbox({ id: 'half', phase: 'removing', cleanup: { attempts: 1, lastError: 'x' } });
    fake.addContainer({ id: 'a', startedAt: 1n });
    fake.addContainer({ id: 'b', startedAt: 1n, exit, reaped: true });
    fake.addContainer({ id: 'c' });
    metrics.leakSwept();
    const got = await read();
    expect(
      Object.fromEntries(
        [...got].filter(([name]) => /^berth_(sandboxes|containers|clean|leaks|im|net|sam)/.test(name)),
      ),
    ).toEqual({
      'berth_sandboxes{state=ready}': 1,
      'berth_sandboxes{state=notready}': 1,
      'berth_containers{state=created}': 1,
      'berth_containers{state=running}': 1,
      'berth_containers{state=exited}': 1,
      'berth_cleanup_tasks{}': 1,
      'berth_leaks_swept_total{}': 1,
      'berth_images{}': 3,
      'berth_image_bytes{}': 5,
      'berth_image_downloads{}': 1,
      'berth_image_unpackings{}': 2,
      'berth_image_downloaded_bytes_total{}': 3,
      'berth_image_unpacked_bytes_total{}': 4,
      'berth_network_ready{}': 1,
      'berth_sampler_seconds_total{}': 0.25,
      'berth_sampler_rounds_total{}': 4,
      'berth_sampled_cgroups{}': 7,
    });
  });

  it('tells of the process', async () => {
    const got = await read();
    expect(got.get('process_resident_memory_bytes{}')).toBeGreaterThan(1e7);
    expect(got.get('process_open_fds{}')).toBeGreaterThan(3);
    expect(got.get('process_cpu_seconds_total{}')).toBeGreaterThan(0);
    expect(Math.abs((got.get('process_start_time_seconds{}') ?? 0) - Date.now() / 1000)).toBeLessThan(3600);
    for (const q of ['0.5', '0.99', '1'])
      expect(got.get(`berth_event_loop_delay_seconds{quantile=${q}}`)).toBeGreaterThanOrEqual(0);
  });
});

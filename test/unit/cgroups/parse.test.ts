import { describe, expect, it } from 'vitest';
import { parseHierarchies } from '../../../cgroups/mountinfo.ts';
import {
  flatReader,
  parseFlatKeyed,
  parseInt64,
  parseMax,
  parseNestedKeyed,
  parsePids,
  parsePsi,
  parseUint,
} from '../../../cgroups/parse.ts';

/** A small generator with a fixed seed, so that a failure repeats. */
function* garbage(count: number): Generator<string> {
  const alphabet = ' \n\t=.:-0123456789abcxyzmax\0é';
  let state = 42;
  const next = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % below;
  };
  for (let i = 0; i < count; i++) {
    yield Array.from({ length: next(40) }, () => alphabet[next(alphabet.length)] ?? '').join('');
  }
}

describe('single values', () => {
  it('keeps 64-bit counters whole', () => {
    expect(parseUint('18446744073709551615\n')).toBe(18446744073709551615n);
    expect(parseUint('9007199254740993')).toBe(9007199254740993n);
    expect(parseInt64('-1\n')).toBe(-1n);
    expect(parseMax('max\n')).toBe(-1n);
    expect(parseMax('4096\n')).toBe(4096n);
  });

  it.each(['', '\n', ' ', 'max', '-1', '1.5', '0x10', '1 2', '1e3', '+1', '1_0'])(
    'does not take %j for a count',
    (text) => {
      expect(parseUint(text)).toBeUndefined();
    },
  );
});

describe('keyed files', () => {
  it('reads flat keys and skips lines of another shape', () => {
    const map = parseFlatKeyed('usage_usec 12\n\nbad\n x 1\nneg -1\nnr_periods 3');
    expect([...map]).toEqual([
      ['usage_usec', 12n],
      ['nr_periods', 3n],
    ]);
  });

  it('finds one flat key as all are found', () => {
    const text = 'usage_usec 12\n\nbad\n x 1\nneg -1\nnr_periods 3\ntotal_rss 4\nrss 5';
    const read = flatReader(text);
    const keys = ['usage_usec', 'bad', 'x', 'neg', 'nr_periods', 'rss', 'total_rss', 'periods', 'usage', ''];
    expect(keys.map(read)).toEqual(keys.map((key) => parseFlatKeyed(text).get(key)));
    expect(flatReader(undefined)('rss')).toBeUndefined();
  });

  it('reads nested keys, also of a line without any', () => {
    const map = parseNestedKeyed('8:0 rbytes=1 =2 odd wios=4\n7:0\n');
    expect(map.get('8:0')).toEqual(new Map(Object.entries({ rbytes: '1', wios: '4' })));
    expect(map.get('7:0')?.size).toBe(0);
  });

  it('turns microseconds of pressure into nanoseconds', () => {
    expect(parsePsi('some avg10=1.50 avg60=0.00 avg300=99.99 total=7\n')).toEqual({
      some: { avg10: 1.5, avg60: 0, avg300: 99.99, totalNs: 7000n },
      full: undefined,
    });
    expect(parsePsi('some avg10=x avg60=0.00 avg300=0.00 total=7')).toBeUndefined();
  });
});

describe('process ids', () => {
  it('never yields an id that kill(2) would take for a group or for everybody', () => {
    expect(parsePids('1\n0\n-1\n42\n\n99999999\n7 8\n')).toEqual([1, 42]);
  });
});

describe('garbage', () => {
  it('is answered with nothing or with numbers that it spells out, never with a throw', () => {
    for (const text of garbage(3000)) {
      for (const value of [parseUint(text), parseInt64(text), ...parseFlatKeyed(text).values()]) {
        if (value !== undefined) expect(text.replace(/(?<!\d)0+(?=\d)/g, '')).toContain(`${value}`);
      }
      for (const pid of parsePids(text)) expect(pid).toBeGreaterThan(0);
      parseNestedKeyed(text);
      parsePsi(text);
      expect(parseHierarchies(text, '/sys/fs/cgroup')).toEqual([]);
    }
  });
});

describe('mountinfo', () => {
  it('finds co-mounted controllers, the named hierarchy and the v2 tree, each once', () => {
    const text = [
      '25 1 0:22 / /proc rw shared:5 - proc proc rw',
      '30 24 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755',
      '31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 master:2 - cgroup2 cgroup2 rw,nsdelegate',
      '32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd',
      '33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
      '34 30 0:30 / /sys/fs/cgroup/net\\040cls rw - cgroup cgroup rw,net_cls',
      '35 30 0:29 / /sys/fs/cgroup/again rw - cgroup cgroup rw,cpu,cpuacct',
      '36 30 0:31 / /sys/fs/cgroup-other/memory rw - cgroup cgroup rw,memory',
    ].join('\n');
    expect(parseHierarchies(text, '/sys/fs/cgroup')).toEqual([
      { mountpoint: '/sys/fs/cgroup/unified', controllers: [], version: 2 },
      { mountpoint: '/sys/fs/cgroup/systemd', controllers: [], version: 1 },
      { mountpoint: '/sys/fs/cgroup/cpu,cpuacct', controllers: ['cpu', 'cpuacct'], version: 1 },
      { mountpoint: '/sys/fs/cgroup/net cls', controllers: ['net_cls'], version: 1 },
    ]);
  });
});

import { describe, expect, it } from 'vitest';
import { type Choice, keysOf, press } from '../../../src/cli/top/keys.ts';
import { arrange, renderTop } from '../../../src/cli/top/render.ts';
import type { TopRow } from '../../../src/cli/top/rows.ts';

const MIB = 1 << 20;
const CHOICE: Choice = { sort: 'cpu', reversed: false, filter: '', typing: false, offset: 0, quit: false };

function row(name: string, over: Partial<TopRow> = {}): TopRow {
  return {
    ...{ id: name.repeat(64).slice(0, 64), pod: 'default/web', name, cores: 0.5, coreLimit: 1 },
    ...{ memory: 50 * MIB, memoryLimit: 100 * MIB, swap: 0, disk: MIB },
    pressure: { cpu: 0, memory: 0, io: 0 },
    ...over,
  };
}
const render = (rows: TopRow[], over: object = {}) =>
  renderTop({ rows, choice: CHOICE, width: 140, height: 10, colours: false, notice: '', ...over });
const ESC = '\u001b';
const names = (rows: readonly TopRow[]) => rows.map(({ name }) => name).join('');
/** After these keys. */
const typed = (keys: string, from = CHOICE) => keysOf(keys).reduce((c, key) => press(c, key, 5), from);

describe('a frame', () => {
  it('has the sums, the heads, a line for each container, and the keys at the bottom', () => {
    const lines = render([row('a'), row('b', { cores: undefined, coreLimit: undefined, pod: 'x/other' })]);
    expect(lines).toHaveLength(10);
    expect(lines[0]).toBe('2 containers, 2 pods   CPU 0.50   memory 100 MiB');
    expect(lines[2]).toMatch(/^POD +NAME +CPU +OF LIMIT +MEMORY +OF LIMIT +SWAP +DISK +W-CPU +W-MEM +W-IO$/);
    expect(lines[3]).toMatch(
      /^default\/web {2}a +0\.50 {2}\|{5} {5} {2}50% +50\.0 MiB {2}\|{5} {5} {2}50% +0 B +1\.0 MiB +0\.0 +0\.0 +0\.0$/,
    );
    expect(lines[4]).toMatch(/^x\/other +b +- {2}- +50\.0 MiB/);
    expect(lines[9]).toMatch(/^q quit/);
  });

  it.each([20, 40, 60, 80, 100, 200])('fits a terminal of %d columns and any number of lines', (width) => {
    const rows = [...'abcdefghij'].map((name) => row(name, { pod: `default/${'long'.repeat(20)}` }));
    for (const height of [1, 2, 5, 24]) {
      const lines = render(rows, { width, height });
      expect(lines.length).toBe(height);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
    }
    expect(render(rows, { width, height: 24 }).join('\n')).toMatch(/d.*0\.50/);
  });

  it('leaves out what matters least first', () => {
    const heads = (width: number) =>
      render([row('a')], { width })[2]
        ?.replace(/ +/g, ' ')
        .trim();
    expect(heads(80)).toBe('POD NAME CPU OF LIMIT MEMORY OF LIMIT');
    expect(heads(60)).toBe('POD NAME CPU MEMORY OF LIMIT');
    expect(heads(45)).toBe('POD NAME CPU MEMORY');
  });

  it('warns by colours, where there are any', () => {
    const full = row('a', { memory: 95 * MIB, pressure: { cpu: 12, memory: 50, io: undefined } });
    const close = row('b', { memory: 80 * MIB });
    const text = render([full, close], { colours: true }).join('\n');
    expect(text).toContain(`${ESC}[31m||||||||||  95%${ESC}[0m`);
    expect(text).toContain(`${ESC}[33m||||||||    80%${ESC}[0m`);
    expect(text).toContain(`${ESC}[33m 12.0${ESC}[0m  ${ESC}[31m 50.0${ESC}[0m  ${ESC}[2m    -${ESC}[0m`);
    expect(text).toContain(`${ESC}[7m   CPU${ESC}[0m`);
    expect(render([full, close]).join('')).not.toContain(ESC);
  });

  it('shows no control character of a name', () => {
    expect(render([row('a', { pod: `x/${ESC}[2J` })]).join('')).not.toContain(ESC);
  });

  it('says why figures are old, and what is filtered', () => {
    expect(render([row('a')], { notice: 'no daemon answers' })[1]).toBe('no daemon answers');
    const filtered = render([row('a'), row('b')], { choice: { ...CHOICE, filter: '/a' } });
    expect(filtered.slice(0, 2)).toEqual([
      '1 of 2 containers, 1 pods   CPU 0.50   memory 50.0 MiB',
      'filter: /a (Esc shows all)',
    ]);
  });

  it('scrolls, and never past the end', () => {
    const rows = [...'abcdefghij'].map((name) => row(name));
    const shown = (offset: number) =>
      render(rows, { height: 8, choice: { ...CHOICE, offset } })
        .slice(3, 7)
        .map((line) => line.slice(13, 14))
        .join('');
    expect([shown(0), shown(3), shown(100)]).toEqual(['abcd', 'defg', 'ghij']);
  });

  it('without a height has all rows and no keys', () => {
    const rows = [...'abcdefghij'].map((name) => row(name));
    const lines = render(rows, { height: undefined });
    expect(lines).toHaveLength(12);
    expect(lines.join('\n')).not.toMatch(/quit| $/m);
  });
});

describe('the order', () => {
  const rows = [
    row('a', { cores: 1, memory: 5, swap: 1, disk: undefined, pressure: { cpu: 0, memory: 9, io: 0 } }),
    row('b', { cores: undefined, memory: 9, swap: 3, disk: 0, pressure: { cpu: 1, memory: 1, io: 1 } }),
    row('c', { cores: 2, memory: 7, swap: 2, disk: 1, pressure: { cpu: 5, memory: 0, io: 0 } }),
  ];
  it.each([
    ['c', 'cab'],
    ['m', 'bca'],
    ['s', 'bca'],
    ['d', 'cba'],
    ['p', 'acb'],
    ['n', 'abc'],
    ['nr', 'cba'],
    ['rc', 'cab'],
  ])('after %s is %s', (keys, expected) => {
    expect(names(arrange(rows, typed(keys)))).toBe(expected);
  });

  it('is that of names among equals, and a filter looks at pod, name and id', () => {
    expect(names(arrange([row('b'), row('a')], CHOICE))).toBe('ab');
    for (const filter of ['web/a', 'aaaaaaaa']) {
      expect(names(arrange([row('a'), row('b')], { ...CHOICE, filter }))).toBe('a');
    }
  });
});

describe('keys', () => {
  it('are told apart, also when they come at once', () => {
    expect(keysOf(`q${ESC}[A${ESC}OB${ESC}[5~${ESC}[1;5C\r\u007f${ESC}`)).toEqual([
      ...['q', 'up', 'down', 'page-up', `${ESC}[1;5C`, 'enter', 'backspace', 'escape'],
    ]);
  });

  it('go into the filter after a slash, until Enter; Esc empties it', () => {
    expect(typed('/qcx\u007f')).toMatchObject({ filter: 'qc', typing: true, quit: false });
    expect(typed(`/ab\r`)).toMatchObject({ filter: 'ab', typing: false });
    expect(typed(`/ab\rq`)).toMatchObject({ filter: 'ab', quit: true });
    expect(typed(`/ab${ESC}`)).toMatchObject({ filter: '', typing: false });
    expect(typed(`/ab\r${ESC}`)).toMatchObject({ filter: '' });
    expect(typed(`/${'x'.repeat(500)}${ESC}[A`).filter).toHaveLength(100);
  });

  it('quit, also while a filter is typed by Ctrl-C', () => {
    expect([typed('q').quit, typed('\u0003').quit, typed('/q').quit, typed('/\u0003').quit]).toEqual([
      ...[true, true, false, true],
    ]);
  });

  it('scroll', () => {
    expect(typed(`${ESC}[B${ESC}[B${ESC}[A`).offset).toBe(1);
    expect(typed(`${ESC}[6~`).offset).toBe(5);
    expect(typed(`${ESC}[5~${ESC}[A`).offset).toBe(0);
    expect(typed(`${ESC}[F`).offset).toBeGreaterThan(1e6);
    expect(typed(`${ESC}[F${ESC}[H`).offset).toBe(0);
    expect(typed(`${ESC}[Bm`).offset).toBe(0);
  });
});

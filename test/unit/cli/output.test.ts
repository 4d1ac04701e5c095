import { describe, expect, it } from 'vitest';
import { ExitStatus, exitCodeOf, UnreachableError, UsageError } from '../../../src/cli/errors.ts';
import { renderTable, shortId, stateName } from '../../../src/cli/output.ts';
import { LayerLines } from '../../../src/cli/progress/lines.ts';
import { BerthError } from '../../../src/errors.ts';

describe('tables', () => {
  it('align without borders or trailing blanks', () => {
    expect(
      renderTable(
        ['ID', 'NAME'],
        [
          ['1', 'a long name'],
          ['22', 'b'],
        ],
      ),
    ).toBe('ID  NAME\n1   a long name\n22  b\n');
  });

  it('let no control characters through', () => {
    expect(renderTable(['A'], [['x\u001b[31m\ny']])).toBe('A\nx?[31m?y\n');
  });

  it('of nothing have a head', () => expect(renderTable(['A', 'B'], [])).toBe('A  B\n'));

  it('shorten ids and states', () => {
    expect(shortId(`sha256:${'ab'.repeat(32)}`)).toBe('abababababab');
    expect(shortId('sha256:ab', true)).toBe('sha256:ab');
    expect(stateName('CONTAINER_RUNNING')).toBe('running');
    expect(stateName('SANDBOX_NOTREADY')).toBe('notready');
  });
});

it.each<[unknown, number]>([
  [new BerthError('notFound', ''), 3],
  [new BerthError('invalid', ''), 2],
  [new BerthError('internal', ''), 1],
  [new UsageError(''), 2],
  [new UnreachableError('e', 'r'), 4],
  [new ExitStatus(77), 77],
  [new Error('x'), 1],
])('exits after %s with %s', (error, code) => expect(exitCodeOf(error)).toBe(code));

it('tells of each phase of a layer once when it is no terminal', () => {
  let text = '';
  const view = new LayerLines({
    write: (part: string) => (text += part),
  } as unknown as NodeJS.WritableStream);
  const layer = { digest: `sha256:${'0'.repeat(64)}`, total: 2048, done: 0 };
  for (const phase of ['WAITING', 'DOWNLOADING', 'DOWNLOADING', 'UNPACKING', 'DONE', 'DONE'] as const) {
    view.update({ ...layer, phase });
  }
  expect(text).toBe(
    'layer 000000000000: downloading (2.0 KiB)\nlayer 000000000000: unpacking (2.0 KiB)\nlayer 000000000000: done (2.0 KiB)\n',
  );
});

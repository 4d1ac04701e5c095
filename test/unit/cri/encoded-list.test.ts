import { describe, expect, it, vi } from 'vitest';
import { EncodedList } from '../../../cri/encoded-list.ts';
import { loadProtos } from '../../../proto/load.ts';

const { ListContainers } = loadProtos().runtimeService;
const item = (id: string) => ({
  id,
  labels: { app: 'web', 'with.dots/and': '' },
  created_at: '9007199254740993',
});
const encode = (containers: object[]) => ListContainers.responseSerialize({ containers });

describe('an encoded list', () => {
  it('has the bytes of a response with all items', () => {
    const list = new EncodedList((record: { id: string }) => encode([item(record.id)]));
    for (const ids of [[], ['a'], ['a', 'b', 'c'.repeat(300)]]) {
      expect(list.of(ids.map((id) => ({ id })))).toEqual(encode(ids.map(item)));
    }
  });

  it('encodes a record once, and another record of the same id again', () => {
    const one = vi.fn((record: { id: string }) => encode([item(record.id)]));
    const list = new EncodedList(one);
    const record = { id: 'a' };
    expect(list.of([record])).toEqual(list.of([record]));
    expect(one).toHaveBeenCalledTimes(1);
    list.of([{ ...record }]);
    expect(one).toHaveBeenCalledTimes(2);
  });
});

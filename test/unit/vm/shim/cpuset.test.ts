import { expect, it } from 'vitest';
import { CpuSets, hostCpus } from '../../../../src/vm/shim/cpuset.ts';

it('a machine runs on the processors of all of its containers', () => {
  const sets = new CpuSets();
  expect(sets.set('a', {})).toEqual({ cpus: '', mems: '' });
  expect(sets.set('b', { cpus: '2-3', mems: '1' })).toEqual({ cpus: '2-3', mems: '1' });
  expect(sets.set('c', { cpus: '0,4,3,12' })).toEqual({ cpus: '0,2-4,12', mems: '1' });
  expect(sets.set('c', { mems: '0' })).toEqual({ cpus: '0,2-4,12', mems: '0-1' });
  expect(sets.set('c', { cpus: '5' })).toEqual({ cpus: '2-3,5', mems: '0-1' });
  expect(sets.delete('b')).toEqual({ cpus: '5', mems: '0' });
  expect(sets.delete('c')).toEqual({ cpus: '', mems: '' });
});

it.each(['x', '3-1', '0-8192', '1,,2', '1-2-3', '-1', '99999'])('"%s" is refused', (cpus) => {
  expect(() => new CpuSets().set('a', { cpus })).toThrow(/is no list/);
});

it('resources that name none change nothing', () => {
  for (const given of [undefined, {}, { cpu: {} }, { cpu: { cpus: '', mems: '' } }]) {
    expect(hostCpus(given)).toEqual({});
  }
  expect(hostCpus({ cpu: { cpus: '1', shares: 2 } })).toEqual({ cpus: '1' });
});

import { expect, it } from 'vitest';
import { expand } from '../../../src/cli/pod/expand.ts';

const values = new Map([
  ['A', 'one'],
  ['B', '$(A)'],
  ['', 'empty'],
]);

it.each([
  ['plain', 'plain'],
  ['$(A)', 'one'],
  ['x$(A)y$(A)', 'xoneyone'],
  ['$$(A)', '$(A)'],
  ['$$$(A)', '$one'],
  ['$(B)', '$(A)'],
  ['$(NO)', '$(NO)'],
  ['$A $', '$A $'],
  ['$(A', '$(A'],
  ['$(A$(A)', '$(A$(A)'],
  ['$()', 'empty'],
  ['$$', '$'],
])('expands %s to %s', (text, wanted) => expect(expand(text, values)).toBe(wanted));

import { expect, it } from 'vitest';
import { imageTree } from '../../../src/cli/image-tree.ts';

const image = (id: string, names: string[], layers: string[], more: object = {}) => ({
  id: `sha256:${id.repeat(64)}`,
  names,
  bytes: '0',
  unique_bytes: '0',
  in_use: false,
  pinned: false,
  layers,
  ...more,
});

it('shows what images share once, and runs of layers in one line', () => {
  const layers = ['a', 'b', 'c', 'd', 'e'].map((id) => ({ chain_id: id, bytes: '1048576', inodes: '1' }));
  const images = [
    image('1', ['x.example/base:1'], ['a', 'b'], { pinned: true }),
    image('2', ['x.example/app:1', 'x.example/app@sha256:0'], ['a', 'b', 'c', 'd'], { in_use: true }),
    image('3', ['x.example/other@sha256:0'], ['a', 'b', 'e']),
    image('4', ['x.example/empty:\u001b[31m'], []),
  ];
  expect(imageTree({ images, layers })).toBe(
    `x.example/empty:?[31m  444444444444
2 layers up to b  2.0 MiB
├─ x.example/base:1  111111111111  (pinned)
├─ 2 layers up to d  2.0 MiB
│  └─ x.example/app:1  222222222222  (used)
└─ layer e  1.0 MiB
   └─ x.example/other@sha256:0  333333333333
`,
  );
});

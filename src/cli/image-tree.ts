import type { DiskUsageResponse__Output as Usage } from '../../proto/gen/berth/v1/DiskUsageResponse.ts';
import { printable, shortId } from './output.ts';
import { formatBytes } from './units.ts';

/** A layer, the layers that stand on it, and the images whose topmost it is. */
interface Node {
  chainId: string;
  children: Map<string, Node>;
  images: Usage['images'];
}

/**
 * All images as a forest of their layers: what several images have in common stands once, and they branch
 * off where they begin to differ. Runs of layers that only one branch has are one line.
 */
export function imageTree({ images, layers }: Pick<Usage, 'images' | 'layers'>): string {
  const bytes = new Map(layers.map((layer) => [layer.chain_id, BigInt(layer.bytes)]));
  const root: Node = { chainId: '', children: new Map(), images: [] };
  for (const image of images) {
    let node = root;
    for (const chainId of image.layers) {
      const child = node.children.get(chainId) ?? { chainId, children: new Map(), images: [] };
      node.children.set(chainId, child);
      node = child;
    }
    node.images.push(image);
  }
  return render(root, '', bytes)
    .map((line) => `${line}\n`)
    .join('');
}

function render(node: Node, indent: string, bytes: ReadonlyMap<string, bigint>): string[] {
  const branches = [
    ...node.images.map((image) => ({ text: nameOf(image), below: undefined })),
    ...Array.from(node.children.values(), (child) => branch(child, bytes)),
  ];
  return branches.flatMap(({ text, below }, i) => {
    const isLast = i === branches.length - 1;
    const isTop = node.chainId === '';
    const line = isTop ? text : `${indent}${isLast ? '└─ ' : '├─ '}${text}`;
    const deeper = isTop ? '' : `${indent}${isLast ? '   ' : '│  '}`;
    return [line, ...(below === undefined ? [] : render(below, deeper, bytes))];
  });
}

/** The line of a layer, with those above it up to the next branch or image. */
function branch(start: Node, bytes: ReadonlyMap<string, bigint>): { text: string; below: Node } {
  let node = start;
  let size = bytes.get(node.chainId) ?? 0n;
  let count = 1;
  for (;;) {
    const [only, ...others] = node.children.values();
    if (only === undefined || others.length > 0 || node.images.length > 0) break;
    node = only;
    size += bytes.get(node.chainId) ?? 0n;
    count += 1;
  }
  const layers = count === 1 ? 'layer' : `${count} layers up to`;
  return { text: `${layers} ${shortId(node.chainId)}  ${formatBytes(size)}`, below: node };
}

function nameOf({ id, names, in_use, pinned }: Usage['images'][number]): string {
  const state = [...(in_use ? ['used'] : []), ...(pinned ? ['pinned'] : [])].join(', ');
  const tags = names.filter((name) => !name.includes('@'));
  const name = (tags.length > 0 ? tags : names.slice(0, 1)).join(' ') || '<none>';
  return printable(`${name}  ${shortId(id)}${state === '' ? '' : `  (${state})`}`);
}

import { describe, expect, it } from 'vitest';
import type { Container, Inventory, Pod } from '../../../src/cli/resolve.ts';
import { idOf, resolve } from '../../../src/cli/resolve.ts';

const pod = (id: string, namespace: string, name: string, created = 1): Pod => ({
  id,
  metadata: { name, namespace, uid: id, attempt: 0 },
  state: 'SANDBOX_READY',
  created_at: String(created),
  labels: {},
  annotations: {},
  runtime_handler: '',
});
const container = (id: string, podId: string, name: string, created = 1): Container => ({
  id,
  pod_sandbox_id: podId,
  metadata: { name, attempt: 0 },
  image: null,
  image_ref: '',
  image_id: '',
  state: 'CONTAINER_RUNNING',
  created_at: String(created),
  labels: {},
  annotations: {},
});

const all: Inventory = {
  pods: [pod('aa11', 'default', 'web'), pod('aa22', 'kube', 'web'), pod('bb33', 'default', 'db')],
  containers: [
    container('cc11', 'aa11', 'nginx'),
    container('cc12', 'bb33', 'pg', 5),
    container('dd99', 'bb33', 'pg', 7),
    container('ee00', 'gone', 'orphan'),
    container('fade', 'bb33', 'cc11'),
  ],
};
const both = ['pod', 'container'] as const;

describe('names and ids', () => {
  it.each([
    ['aa11', 'aa11'],
    ['bb', 'bb33'],
    ['default/web', 'aa11'],
    ['kube/web', 'aa22'],
    ['db', 'bb33'],
    ['default/web/nginx', 'cc11'],
    ['web/nginx', 'cc11'],
    ['cc11', 'cc11'],
    ['e', 'ee00'],
  ])('finds %s', (word, id) => expect(idOf(resolve(word, all, both))).toBe(id));

  it('means the newest of several attempts', () => expect(idOf(resolve('db/pg', all, both))).toBe('dd99'));

  it('takes a whole id for itself, even when it begins another', () => {
    const more = { ...all, pods: [...all.pods, pod('aa111', 'x', 'y')] };
    expect(idOf(resolve('aa11', more, both))).toBe('aa11');
  });

  it('lists the candidates of an ambiguous word', () => {
    expect(() => resolve('cc1', all, both)).toThrow(
      '"cc1" means more than one pod or container:\n  cc11  container default/web/nginx\n  cc12  container default/db/pg',
    );
    expect(() => resolve('web', all, ['pod'])).toThrow(/pod default\/web\n.*pod kube\/web/);
  });

  it.each(['', 'zz', 'web/', 'nginx', 'default'])('knows no %j', (word) =>
    expect(() => resolve(word, all, both)).toThrow(`pod or container "${word}" not found`),
  );

  it('looks only among what may be meant', () =>
    expect(() => resolve('aa11', all, ['container'])).toThrow('container "aa11" not found'));
});

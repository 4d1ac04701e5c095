import { describe, expect, it } from 'vitest';
import { UsageError } from '../../../src/cli/errors.ts';
import { parsePods } from '../../../src/cli/pod/parse.ts';

const POD = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: a, image: busybox}]
`;

function problem(text: string): string {
  try {
    parsePods(text, 'f.yaml');
  } catch (e: unknown) {
    expect(e).toBeInstanceOf(UsageError);
    return (e as UsageError).message;
  }
  return expect.unreachable();
}

describe('pod files', () => {
  it('reads several documents and skips empty ones', () => {
    const pods = parsePods(`---\n${POD}---\n---\n${POD.replace('web', 'db')}`, 'f.yaml');
    expect(pods.map(({ pod }) => pod.metadata.name)).toEqual(['web', 'db']);
    expect(pods.flatMap(({ warnings }) => warnings)).toEqual([]);
  });

  it('reads JSON', () => {
    const text = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'j' },
      spec: { containers: [{ name: 'a', image: 'b' }] },
    });
    expect(parsePods(text, 'f.json')[0]?.pod.metadata.name).toBe('j');
  });

  it('names each field that has no effect, once, and says why', () => {
    const text = `${POD.replace('busybox', 'busybox, livenessProbe: {exec: {}}, x: {y: 1}')}  nodeSelector: {a: b}
  frobnicate: true
  securityContext: {windowsOptions: {runAsUserName: x}}
  restartPolicy: Always
`;
    expect(parsePods(text, 'f')[0]?.warnings).toEqual([
      'spec.containers[0].livenessProbe has no effect: it needs a kubelet',
      'spec.containers[0].x has no effect: berth does not know it',
      'spec.nodeSelector has no effect: it needs a scheduler',
      'spec.frobnicate has no effect: berth does not know it',
      'spec.securityContext.windowsOptions has no effect: berth does not know it',
      'spec.restartPolicy Always is not enforced: berth starts each container once',
    ]);
  });

  it('says nothing of empty fields and of what the API server writes', () => {
    const text = `${POD.replace('{name: web}', '{name: web, creationTimestamp: null, resourceVersion: "7"}')}  tolerations: []
  affinity: {}
  initContainers: null
status: {phase: Running}
`;
    expect(parsePods(text, 'f')[0]?.warnings).toEqual([]);
  });

  it.each([
    ['nothing', '# only a comment\n', /holds no Pod/],
    ['another kind', POD.replace('Pod', 'Deployment'), /document 1: is v1 Deployment; berth runs/],
    ['another version', POD.replace('v1', 'v2'), /is v2 Pod/],
    ['text', 'hello', /is string/],
    ['broken YAML', '{a: [', /document 1: /],
    ['a doubled key', `${POD}  containers: []\n`, /unique/],
    ['no containers', POD.replace('[{name: a, image: busybox}]', '[]'), /spec\.containers: /],
    ['an upper-case name', POD.replace('web', 'Web'), /metadata\.name: must be lowercase/],
    ['a name with a slash', POD.replace('name: a', 'name: a/b'), /spec\.containers\[0\]\.name: must/],
    ['a name with ..', POD.replace('web', 'a..b'), /metadata\.name: must not contain/],
    ['a wrong type', POD.replace('image: busybox', 'image: 7'), /spec\.containers\[0\]\.image: /],
    ['a uid that is a path', POD.replace('name: web', 'name: web, uid: ../../x'), /metadata\.uid: /],
    ['the same pod twice', `${POD}---\n${POD}`, /default\/web is there twice/],
    ['a YAML bomb', `a: &a [1]\nb: [${'*a,'.repeat(200)}]`, /aliases/],
  ])('refuses %s', (_name, text, message) => expect(problem(text)).toMatch(message));
});

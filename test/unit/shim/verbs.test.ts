import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../../proto/load-shim.ts';
import { deleteWithoutShim, startShim } from '../../../src/shim/verbs.ts';

const protos = loadShimProtos();
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'berth-verbs-'));
  mkdirSync(path.join(dir, 'c1'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A program in a shim's place, and how it is called. */
function program(script: string, debug = false) {
  const file = path.join(dir, 'shim');
  writeFileSync(file, `#!/bin/sh\necho "$@" > ${dir}/args; pwd > ${dir}/cwd; env > ${dir}/env\n${script}\n`);
  chmodSync(file, 0o755);
  return { path: file, namespace: 'vm', events: '/run/berth/events.sock', debug };
}
const bundle = () => ({ id: 'c1', dir: path.join(dir, 'c1') });
const seen = (what: string) => readFileSync(path.join(dir, what), 'utf8').trim();

describe('the start verb', () => {
  it('is called in the bundle with what a shim wants to know, and answers the address', async () => {
    const shim = program('echo unix:///run/x');
    expect(await startShim(shim, bundle(), { MARK: 'sb1' })).toEqual({ version: 2, socket: '/run/x' });
    expect(seen('args')).toBe(
      '-namespace vm -id c1 -address /run/berth/events.sock -publish-binary /bin/true start',
    );
    expect(seen('cwd')).toBe(bundle().dir);
    const variables = seen('env').split('\n');
    for (const variable of ['TTRPC_ADDRESS=/run/berth/events.sock', 'NAMESPACE=vm', 'MARK=sb1']) {
      expect(variables).toContain(variable);
    }
  });

  it('asks for debug messages when the daemon has them', async () => {
    await startShim(program('echo unix:///run/x', true), bundle(), {});
    expect(seen('args')).toMatch(/ -debug start$/);
  });

  it('fails with what the shim said last', async () => {
    const failing = startShim(program('echo first >&2; echo "no KVM here" >&2; exit 1'), bundle(), {});
    await expect(failing).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringMatching(/^shim start: .*exit code 1: no KVM here$/),
    });
  });
});

describe('the delete verb', () => {
  it('answers how the container ended', async () => {
    const answer = protos.taskV2.Delete.responseSerialize({
      exit_status: 137,
      exited_at: { seconds: '5', nanos: 7 },
    });
    writeFileSync(path.join(dir, 'answer'), answer);
    const end = await deleteWithoutShim(program(`cat ${dir}/answer`), bundle(), protos);
    expect(end).toEqual({ code: 137, at: 5_000_000_007n });
    expect(seen('args')).toMatch(new RegExp(` -bundle ${bundle().dir} delete$`));
  });

  it('knows no time when the shim knows none', async () => {
    expect(await deleteWithoutShim(program('true'), bundle(), protos)).toEqual({ code: 0, at: undefined });
  });

  it('fails with nonsense', async () => {
    const nonsense = deleteWithoutShim(program('echo nonsense'), bundle(), protos);
    await expect(nonsense).rejects.toThrow(/no DeleteResponse/);
  });
});

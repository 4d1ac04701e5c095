import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kindOf } from '../../../src/errors.ts';
import { updateSandboxResources } from '../../../src/sandbox/update-resources.ts';
import { fakeServices } from '../recover/services.ts';
import { sandboxConfig } from '../spec/configs.ts';

let fake: ReturnType<typeof fakeServices>;
beforeEach(() => {
  fake = fakeServices();
});
afterEach(() => fake.close());

describe('updateSandboxResources', () => {
  it('keeps what is given and leaves the rest, and the pod’s configuration, as they are', async () => {
    const config = sandboxConfig({ resources: { cpuShares: 2n, cpuQuota: 5n }, overhead: { cpuShares: 9n } });
    fake.addSandbox({ config });
    const update = (resources: object, overhead: object = {}) =>
      updateSandboxResources(fake.s, 'sb1', { resources, overhead });
    await update({ memoryLimitBytes: 7n, cpuShares: 3n });
    await update({ memoryLimitBytes: 8n }, { memoryLimitBytes: 1n });
    const record = fake.s.sandboxes.require('sb1');
    expect(record.resized).toEqual({
      resources: { cpuShares: 3n, cpuQuota: 5n, memoryLimitBytes: 8n },
      overhead: { cpuShares: 9n, memoryLimitBytes: 1n },
    });
    // RunPodSandbox compares a retry with it.
    expect(record.config).toEqual(config);
  });

  it.each([
    ['one that is not there', 'other', {}, 'notFound'],
    ['one that is being removed', 'gone', {}, 'notFound'],
    ['wrong figures', 'sb1', { cpuPeriod: -5n }, 'invalid'],
  ])('refuses %s', async (_name, id, resources, kind) => {
    fake.addSandbox();
    fake.addSandbox({ id: 'gone', phase: 'removing' });
    const failure = await updateSandboxResources(fake.s, id, { resources, overhead: {} }).catch(
      (e: unknown) => e,
    );
    expect(kindOf(failure)).toBe(kind);
    expect(fake.s.sandboxes.require('sb1').resized).toBeUndefined();
  });
});

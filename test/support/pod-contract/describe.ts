import { afterAll, beforeAll, describe, expect } from 'vitest';
import { describeCommands } from './commands.ts';
import { describeEnds } from './ends.ts';
import { describeFigures } from './figures.ts';
import type { PodHandler } from './handler.ts';
import { describeLife } from './life.ts';
import { describeLogs } from './logs.ts';
import { describeProcess } from './process.ts';
import { describeSandbox } from './sandbox.ts';
import { describeStreams } from './streams.ts';
import { Suite } from './suite.ts';
import { describeVolumes } from './volumes.ts';

/**
 * What the kubelet sees of pods and containers through CRI, whatever runs them. Most of it in one pod, since a pod
 * may be a machine.
 */
export function describePods(handler: PodHandler): void {
  // A machine is emulated, and others may use the processors.
  describe(`pods of the handler ${handler.name}`, { timeout: 240_000 }, () => {
    const suite = new Suite(handler);
    beforeAll(() => suite.start(), 300_000);
    afterAll(async () => expect(await suite.berthd?.close()).toEqual([]));
    describeSandbox(suite);
    describeProcess(suite);
    describeVolumes(suite);
    describeLife(suite);
    describeLogs(suite);
    describeCommands(suite);
    describeStreams(suite);
    describeFigures(suite);
    // Last: the daemon is killed, the pods are removed.
    describeEnds(suite);
  });
}

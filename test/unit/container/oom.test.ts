import { expect, test } from 'vitest';
import { isOomVictim } from '../../../src/container/oom.ts';
import { readKernelLog } from '../../../src/sys/kernel-log.ts';

/** As kernel 6.1 writes it. */
const LOG = `<6>[   64.730551] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=dd,pid=441,uid=0
<3>[   64.731405] Memory cgroup out of memory: Killed process 441 (dd) total-vm:68680kB, anon-rss:16088kB
<6>[   64.731876] Tasks in /a/b.scope are going to be killed due to memory.oom.group set
<3>[   65.000001] Out of memory: Killed process 50 (x (y) z) total-vm:68680kB, anon-rss:16088kB, UID:0
<6>[   66.000001] init: Killed process 60
`;

test.each<[string, number, bigint, boolean]>([
  ['of a cgroup', 441, 6_400n, true],
  ['of the node', 50, 100n, true],
  ['another process', 44, 100n, false],
  ['an earlier process with that pid', 441, 6_500n, false],
  ['killed by somebody else', 60, 100n, false],
])('a victim of the OOM killer: %s', (_what, pid, startTime, wanted) => {
  expect(isOomVictim(LOG, { pid, startTime })).toBe(wanted);
});

test("the kernel's log can be read, or is empty", () => {
  expect(readKernelLog()).toMatch(/^$|^<\d+>/m);
});

import { describe, expect, it } from 'vitest';
import { refusal, until } from '../pods.ts';
import type { Suite } from './suite.ts';

/** ExecSync. */
export function describeCommands(suite: Suite): void {
  describe('ExecSync', () => {
    it('keeps stdout and stderr apart, gives no input, and a code is no error', async () => {
      const { pods, two } = suite;
      const script = 'echo $ANSWER; cat; echo err >&2; exit 42';
      expect(await pods.exec(two, ['sh', '-c', script])).toEqual({
        code: 42,
        stdout: '42\n',
        stderr: 'err\n',
      });
      expect((await pods.exec(two, ['sh', '-c', 'kill -9 $$'])).code).toBe(137);
      const many = Array.from({ length: 4 }, (_, i) => pods.exec(two, ['sh', '-c', `echo ${i}; exit ${i}`]));
      expect(await Promise.all(many)).toEqual(
        many.map((_, i) => ({ code: i, stdout: `${i}\n`, stderr: '' })),
      );
    });

    it('gives the command the container’s user, groups, capabilities, directory, namespaces and limits', async () => {
      const { pods, pod } = suite;
      const facts = (pid: string) =>
        `grep -E "^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):" /proc/${pid}/status; cat /proc/${pid}/cgroup /proc/${pid}/limits; ` +
        `for n in mnt net pid uts ipc cgroup; do readlink /proc/${pid}/ns/$n; done; readlink /proc/${pid}/cwd`;
      const id = await pods.start(pod, {
        command: ['sleep', '100000'],
        working_dir: '/etc',
        linux: {
          security_context: {
            run_as_user: { value: '1234' },
            run_as_group: { value: '99' },
            supplemental_groups: ['7', '8'],
            capabilities: { drop_capabilities: ['ALL'] },
            no_new_privs: true,
            namespace_options: { pid: 'CONTAINER' },
          },
        },
      });
      const [first, second] = (await pods.ask(id, `${facts('1')}; echo ----; ${facts('self')}`)).split(
        '\n----\n',
      );
      expect(second).toBe(first);
      expect(first).toMatch(/Uid:\t1234(?:.*\n)*\/etc$/);
      await pods.removeContainer(id);
    });

    it('kills the command at the timeout', async () => {
      const { pods, two, handler } = suite;
      const args = () => pods.ask(two, 'ps -o args');
      const script =
        handler.leavesChildrenOfCommands === undefined ? 'sleep 54321 & sleep 54321' : 'exec sleep 54321';
      const said = await refusal(pods.exec(two, ['sh', '-c', script], 1));
      expect(said).toMatchObject({ kind: 'deadline', message: expect.stringMatching(/1 s/) });
      await until('it is gone', async () => !(await args()).includes('54321'));
    });

    it('returns when the command ends, though a child in the background holds its output', async () => {
      const { pods, two } = suite;
      const said = await pods.exec(two, ['sh', '-c', 'echo said; sleep 25 & exit 5'], 20);
      expect(said).toMatchObject({ code: 5, stdout: 'said\n' });
      expect(await pods.ask(two, 'ps -o args')).toContain('sleep 25');
    });

    it('gives the first 15 MiB of more output than a message holds, bytes as they are', async () => {
      const { berthd, two } = suite;
      const script = "printf '\\000\\377\\n\\200'; yes 0123456789abcde | head -c 20000000; exit 9";
      const { exit_code, stdout, stderr } = await berthd.client.runtime('ExecSync', {
        container_id: two,
        cmd: ['sh', '-c', script],
        timeout: 60,
      });
      expect([exit_code, stdout.length, stderr.length]).toEqual([9, 15 << 20, 0]);
      const expected = Buffer.from(`\0\xff\n\x80${'0123456789abcde\n'.repeat(1 << 20)}`, 'latin1');
      expect(stdout.equals(expected.subarray(0, 15 << 20))).toBe(true);
    });

    it('says which command is missing, and refuses what cannot be run', async () => {
      const { pods, pod, two } = suite;
      const missing = await refusal(pods.exec(two, ['no-such-command']));
      expect(missing).toMatchObject({
        kind: 'internal',
        message: expect.stringContaining('no-such-command'),
      });
      expect((await refusal(pods.exec(await pods.create(pod), ['true']))).kind).toBe('precondition');
      expect((await refusal(pods.exec('f'.repeat(64), ['true']))).kind).toBe('notFound');
    });
  });
}

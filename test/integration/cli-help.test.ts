import { describe, expect, it } from 'vitest';
import { BERTH, start } from '../support/cli.ts';

describe('help', () => {
  const verbs = [
    'run',
    'ps',
    'pods',
    'images',
    'pull',
    'import',
    'export',
    'build-rootfs',
    'rmi',
    'du',
    'gc',
    'logs',
    'exec',
    'attach',
    'port-forward',
    'start',
    'stop',
    'rm',
    'inspect',
    'stats',
    'top',
    'info',
  ];
  // Nothing listens there: help must not ask.
  const berth = (...args: string[]) => start('unix:///none/x.sock', args, '', [BERTH]);

  it('lists every verb', async () => {
    const { code, stdout, stderr } = await berth('--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const listed = stdout
      .split('Commands:\n')[1]
      ?.split('\n\n')[0]
      ?.match(/(?<=^ {2})[\w-]+/gm);
    // Under "vm" there are verbs of its own.
    expect(listed?.toSorted()).toEqual([...verbs, 'vm', 'help'].toSorted());
    expect(stdout).toMatch(/Exit status: 0 done; 1 .*Examples:\n {2}berth run/s);
  });

  it.each(verbs)('of %s says what it does, with examples of it', async (verb) => {
    const { code, stdout, stderr } = await berth(verb, '--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^Usage: berth ${verb}[^\n]*\n\n[A-Z]`));
    expect(stdout).toMatch(new RegExp(`\nExamples:\n( {2}.*\n)*.*berth ${verb}`));
    expect(stdout).toContain('--endpoint');
  });

  it('is the same by either spelling', async () => {
    const [option, word] = await Promise.all([berth('rm', '--help'), berth('help', 'rm')]);
    expect(word).toEqual(option);
  });
});

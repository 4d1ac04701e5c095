import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';

/** What runs in a terminal of its own. */
export interface Typist {
  /** All that was shown so far. */
  readonly shown: string;
  write(keys: string): void;
  /** Changes the terminal's size, of which the kernel tells what runs in it. */
  resize(rows: number, columns: number): Promise<void>;
}

/** Of the line with which the shell says what its terminal is. */
const NAMED = /terminal (\/dev\/pts\/\d+)\r\n/;

/**
 * Runs a shell script in a terminal of 30 lines of 90 columns, to its end.
 *
 * @param type called each time that something is shown
 * @returns what was shown
 */
export async function inTerminal(
  script: string,
  env: NodeJS.ProcessEnv,
  type: (typist: Typist) => unknown = () => {},
): Promise<string> {
  const setUp = 'echo "terminal $(tty)"; stty rows 30 cols 90';
  const child = spawn('script', ['-qec', `${setUp}; ${script}`, '/dev/null'], { env });
  let shown = '';
  const typist: Typist = {
    get shown() {
      return shown;
    },
    write: (keys) => void child.stdin.write(keys),
    resize: async (rows, columns) => {
      const device = NAMED.exec(shown)?.[1] ?? '';
      await promisify(execFile)('stty', ['-F', device, 'rows', `${rows}`, 'cols', `${columns}`]);
    },
  };
  child.stdout.on('data', (chunk) => {
    shown += String(chunk);
    type(typist);
  });
  // Not `exit`, after which more may be shown.
  await once(child, 'close');
  child.stdin.end();
  return shown.replace(NAMED, '');
}

/** The lines in which `stty -g` told the terminal's modes. */
export function modesIn(shown: string): string[] {
  return shown.split('\r\n').filter((line) => /^[0-9a-f:]{40,}$/.test(line));
}

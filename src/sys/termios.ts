import { check, declare } from './libc.ts';

const TCSADRAIN = 1;
/** More than glibc's struct termios (60 bytes). */
const TERMIOS_SIZE = 256;

const cTcgetattr = declare<[number, Buffer]>('tcgetattr', ['int', 'void *']);
const cTcsetattr = declare<[number, number, Buffer]>('tcsetattr', ['int', 'int', 'const void *']);
const cCfmakeraw = declare<[Buffer]>('cfmakeraw', ['void *']);

/**
 * Makes a terminal raw (termios(3)): every byte passes both ways as it is. Node's own raw mode still turns
 * each line feed that is shown into two characters, which the far terminal has done already, or must not be
 * done for a full-screen program.
 *
 * @returns what gives the terminal its modes back; repeatable
 * @throws SyscallError ENOTTY
 */
export function makeRaw(fd: number): () => void {
  const before = Buffer.alloc(TERMIOS_SIZE);
  check('tcgetattr', cTcgetattr(fd, before));
  const raw = Buffer.from(before);
  cCfmakeraw(raw);
  check('tcsetattr', cTcsetattr(fd, TCSADRAIN, raw));
  return () => void cTcsetattr(fd, TCSADRAIN, before);
}

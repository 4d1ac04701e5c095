import { writeSync } from 'node:fs';
import type { WriteStream } from 'node:tty';
import { followSize, type Size, takeTerminal, terminalOf } from '../streaming/terminal.ts';

/** Another screen, so that what was there comes back, and no cursor. */
const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const REST_OF_LINE = '\x1b[K';
const REST_OF_SCREEN = '\x1b[J';

/** A terminal taken over as a whole, until it is closed or the process ends. */
export class Screen {
  readonly #out: WriteStream;
  readonly #undo: (() => void)[] = [];
  #size: Size = { Width: 80, Height: 24 };

  private constructor(out: WriteStream) {
    this.#out = out;
  }

  /**
   * @param onKeys told what is typed
   * @param onResize told when the terminal has another size
   * @returns undefined when input or output is no terminal
   */
  static take(
    io: { stdin: NodeJS.ReadableStream; stdout: NodeJS.WritableStream },
    onKeys: (input: string) => void,
    onResize: () => void,
  ): Screen | undefined {
    const input = terminalOf(io.stdin);
    const out = io.stdout as WriteStream;
    if (input === undefined || out.isTTY !== true) return undefined;
    const screen = new Screen(out);
    screen.#undo.push(takeTerminal(input));
    const stop = followSize(out, (size) => {
      screen.#size = size;
      onResize();
    });
    const leave = () => screen.#leave();
    const hear = (chunk: Buffer) => onKeys(chunk.toString());
    process.on('exit', leave);
    input.on('data', hear);
    screen.#undo.push(
      stop,
      () => process.off('exit', leave),
      () => {
        input.off('data', hear);
        // Or it would keep this process waiting for a key.
        input.pause();
      },
    );
    out.write(ENTER);
    return screen;
  }

  get size(): Size {
    return this.#size;
  }

  /** Shows these lines, at most as many as the terminal has, in one write: nothing flickers. */
  show(lines: readonly string[]): void {
    this.#out.write(HOME + lines.map((line) => line + REST_OF_LINE).join('\r\n') + REST_OF_SCREEN);
  }

  /** Gives the terminal back as it was. Repeatable. */
  close(): void {
    if (this.#undo.length === 0) return;
    this.#leave();
    for (const step of this.#undo.splice(0).reverse()) step();
  }

  /** At once: at the end of the process nothing is written later. */
  #leave(): void {
    const { fd } = this.#out as WriteStream & { fd: number };
    try {
      writeSync(fd, LEAVE);
    } catch {
      // The terminal has gone, as on SIGHUP.
    }
  }
}

import { stripVTControlCharacters, styleText } from 'node:util';
import { renderTable } from '../../src/cli/output.ts';

/** Where the demo's text goes: headings, commands as a person would type them, and what they print. */
export class Console {
  readonly #out: NodeJS.WritableStream;
  #headings = 0;

  constructor(out: NodeJS.WritableStream) {
    this.#out = out;
  }

  /** Begins a numbered step. */
  heading(text: string): void {
    this.#headings += 1;
    this.line(`\n${this.#bold(`${this.#headings}. ${text}`)}`);
  }

  /** A command line, whose output follows. */
  command(text: string): void {
    this.line(`\n  ${this.#bold(`$ ${text}`)}`);
  }

  /** Output or remarks; nothing for an empty text. */
  text(text: string): void {
    const trimmed = stripVTControlCharacters(text).trimEnd();
    if (trimmed !== '') this.line(trimmed.replace(/^(?=.)/gm, '  '));
  }

  table(head: readonly string[], rows: readonly (readonly string[])[]): void {
    this.text(renderTable(head, rows));
  }

  line(text: string): void {
    this.#out.write(`${text}\n`);
  }

  /** Only on a terminal, and not against NO_COLOR. */
  #bold(text: string): string {
    return styleText('bold', text, { stream: this.#out });
  }
}

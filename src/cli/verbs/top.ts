import { setTimeout as delay } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { messageOf } from '../../errors.ts';
import type { Context } from '../context.ts';
import { UsageError } from '../errors.ts';
import { type Choice, keysOf, press, SORTS, type SortKey } from '../top/keys.ts';
import { arrange, clampOffset, pageOf, renderTop } from '../top/render.ts';
import { TopReader, type TopRow } from '../top/rows.ts';
import { Screen } from '../top/screen.ts';
import { parseDuration } from '../units.ts';

interface Options {
  sort: SortKey;
  /** Milliseconds. */
  interval: number;
  once?: true;
}

/** Of a frame that nobody's terminal limits: room for all columns. */
const WIDE = 200;

export function configure(command: Command, context: () => Context): void {
  command
    .description('Shows what running containers use, again and again, on the whole terminal.')
    .argument('[filter]', 'only containers whose pod, name or id holds this')
    .addOption(new Option('--sort <order>', 'at first').choices(SORTS.map(({ by }) => by)).default('cpu'))
    .option('--interval <duration>', 'between two looks, such as 2s', interval, 2_000)
    .option('--once', 'one look, as text; also what happens without a terminal')
    .addHelpText(
      'after',
      '\nCPU is in cores: 0.50 is half of one. OF LIMIT is the part of the quota or memory limit in use. W-CPU,\n' +
        'W-MEM and W-IO are percents of the last ten seconds in which some task waited (PSI, cgroup v2).\n' +
        '\nKeys: c, m, s, d, p, n sort; r reverses; / filters, Esc shows all; arrows and pages scroll; q quits.\n' +
        '\nExamples:\n  berth top\n  berth top kube-system --sort memory\n  berth top --once\n',
    )
    .action((filter: string | undefined, options: Options) => top(context(), filter ?? '', options));
}

function interval(text: string): number {
  const ms = Number((parseDuration(text) ?? 0n) / 1_000_000n);
  if (ms < 100 || ms > 3_600_000) throw new InvalidArgumentError('must be a duration from 100ms to 1h');
  return ms;
}

async function top(context: Context, filter: string, options: Options): Promise<void> {
  if (context.output === 'json') {
    throw new UsageError('berth top is for people; programs are served by berth stats -o json');
  }
  const reader = new TopReader(await context.client());
  const choice: Choice = {
    ...{ sort: options.sort, reversed: false, filter, typing: false },
    ...{ offset: 0, quit: false },
  };
  const rows = await reader.read();
  const live = options.once === true ? undefined : new Live(context, reader, rows, choice);
  if (live !== undefined && (await live.run(options.interval))) return;
  const frame = { rows, choice, width: WIDE, height: undefined, colours: false, notice: '' };
  context.stdout.write(`${renderTop(frame).join('\n')}\n`);
}

/** The frames on a terminal, until somebody quits. */
class Live {
  readonly #context: Context;
  readonly #reader: TopReader;
  readonly #quit = new AbortController();
  #screen: Screen | undefined;
  #rows: readonly TopRow[];
  #choice: Choice;
  #notice = '';

  constructor(context: Context, reader: TopReader, rows: readonly TopRow[], choice: Choice) {
    this.#context = context;
    this.#reader = reader;
    this.#rows = rows;
    this.#choice = choice;
  }

  /** @returns false, at once, where there is no terminal */
  async run(everyMs: number): Promise<boolean> {
    this.#screen = Screen.take(
      this.#context,
      (input) => this.#onKeys(input),
      () => this.#draw(),
    );
    if (this.#screen === undefined) return false;
    const end = AbortSignal.any([this.#context.signal, this.#quit.signal]);
    try {
      this.#draw();
      while (!end.aborted) {
        await delay(everyMs, undefined, { signal: end }).catch(() => {});
        if (!end.aborted) await this.#look();
      }
    } finally {
      this.#screen.close();
      this.#screen = undefined;
    }
    return true;
  }

  /** A daemon that is being restarted is back soon; until then there are the last figures. */
  async #look(): Promise<void> {
    try {
      this.#rows = await this.#reader.read();
      this.#notice = '';
    } catch (e: unknown) {
      this.#notice = messageOf(e);
    }
    this.#draw();
  }

  #onKeys(input: string): void {
    if (this.#screen === undefined) return;
    const page = pageOf(this.#screen.size.Height);
    for (const key of keysOf(input)) {
      const next = press(this.#choice, key, page);
      const count = arrange(this.#rows, next).length;
      this.#choice = { ...next, offset: clampOffset(next.offset, count, page) };
    }
    if (this.#choice.quit) this.#quit.abort();
    else this.#draw();
  }

  #draw(): void {
    if (this.#screen === undefined) return;
    const { Width: width, Height: height } = this.#screen.size;
    const colours = !this.#context.env.NO_COLOR;
    const [rows, choice, notice] = [this.#rows, this.#choice, this.#notice];
    this.#screen.show(renderTop({ rows, choice, width, height, colours, notice }));
  }
}

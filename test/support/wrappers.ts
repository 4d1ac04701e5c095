import { chmod, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

/** What a wrapped program does instead of its work. A hanging one goes on when the plan changes. */
export type Misbehaviour = 'fail' | 'nonsense' | 'hang';

/** How a program's verb is found out: from its arguments, its environment, or it has only one. */
const VERBS = {
  runtime:
    'for word; do case $word in run|create|start|kill|delete|state|exec) verb=$word; break;; esac; done',
  conmon: 'verb=create',
  cni: 'verb=$CNI_COMMAND',
};

/**
 * A program that stands before a real one and misbehaves by plan: for verbs named there, and only where its arguments or
 * `CNI_ARGS` contain `only`.
 */
export class Wrapper {
  /** The wrapper's own path. */
  readonly program: string;
  readonly #plan: string;

  private constructor(program: string, plan: string) {
    this.program = program;
    this.#plan = plan;
  }

  /** Writes the wrapper of `real` into `dir`, under the same name. */
  static async make(dir: string, real: string, kind: keyof typeof VERBS): Promise<Wrapper> {
    await mkdir(dir, { recursive: true });
    const program = path.join(dir, path.basename(real));
    const wrapper = new Wrapper(program, `${program}.plan`);
    await wrapper.plan();
    await writeFile(
      program,
      `#!/bin/sh
${VERBS[kind]}
planned() { read -r at action only <'${wrapper.#plan}'; case "$at $* $CNI_ARGS" in "$verb "*"$only"*) ;; *) action= ;; esac; }
planned "$@"
case $action in
fail) echo "planned failure of $verb" >&2; exit 1 ;;
nonsense) echo '}{ planned nonsense'; exit 0 ;;
hang) while planned "$@" && [ "$action" = hang ]; do sleep 0.05; done ;;
esac
exec '${real}' "$@"
`,
    );
    await chmod(program, 0o755);
    return wrapper;
  }

  /** Makes one verb misbehave, or none. */
  async plan(verb = 'nothing', action: Misbehaviour | 'nothing' = 'nothing', only = ''): Promise<void> {
    await writeFile(this.#plan, `${verb} ${action} ${only}\n`);
  }
}

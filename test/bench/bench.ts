import { PullMeasure } from './images.ts';
import { LONE } from './lone.ts';
import type { Figure, Measure, Size, Values } from './measure.ts';
import { endPod, startPod } from './pods.ts';
import { depopulate, POPULATED, populate } from './populated.ts';
import type { Row } from './report.ts';
import type { Subject } from './subject.ts';

/** Pods that each daemon runs before anything counts. */
const WARM_UP_PODS = 3;

/** Names that `--only` takes. */
export const MEASURES: readonly string[] = [
  ...new Set([...LONE, new PullMeasure(), ...POPULATED].map(({ name }) => name)),
];

/** What a run of the bench consists of. */
export interface Plan {
  subjects: readonly Subject[];
  size: Size;
  only: readonly string[];
  progress: (message: string) => void;
}

/**
 * Takes the measures one after the other, each in rounds in which every daemon has its turn in the same
 * order. Rows come as they are complete; after a failure there are those before it.
 */
export async function bench(plan: Plan, rows: Row[]): Promise<void> {
  const { subjects, progress, size } = plan;
  const wanted = (measures: readonly Measure[]) => measures.filter((measure) => isWanted(plan, measure));
  for (const subject of subjects) {
    progress(`${subject.name}: warm-up`);
    for (let i = 0; i < WARM_UP_PODS; i++) await endPod(subject, (await startPod(subject)).pod);
  }
  for (const measure of wanted(LONE)) await rounds(plan, measure, rows);
  const pulls = new PullMeasure();
  try {
    for (const measure of wanted([pulls])) await rounds(plan, measure, rows);
  } finally {
    await pulls.close();
  }
  const populated = wanted(POPULATED);
  if (populated.length === 0) return;
  for (const subject of subjects) {
    progress(`${subject.name}: ${size.pods} pods`);
    await populate(subject, size.pods);
  }
  for (const measure of populated) await rounds(plan, measure, rows);
  for (const subject of subjects) {
    progress(`${subject.name}: removing ${size.pods} pods`);
    await depopulate(subject);
  }
}

function isWanted({ only, subjects }: Plan, measure: Measure): boolean {
  if (only.length > 0 && !only.includes(measure.name)) return false;
  return measure.restarts !== true || subjects.every(({ restartable }) => restartable);
}

async function rounds(plan: Plan, measure: Measure, rows: Row[]): Promise<void> {
  const { subjects, size, progress } = plan;
  const values = new Map<string, Values[]>(subjects.map(({ name }) => [name, []]));
  const take = async (subject: Subject): Promise<void> => {
    values.get(subject.name)?.push(await measure.run(subject, size));
  };
  for (let round = 1; round <= size.rounds; round++) {
    progress(`${measure.name}: round ${round} of ${size.rounds}`);
    if (measure.together === true) await Promise.all(subjects.map(take));
    else for (const subject of subjects) await take(subject);
  }
  rows.push(...measure.figures(size).map((figure) => toRow(figure, values)));
}

function toRow(figure: Figure, values: ReadonlyMap<string, Values[]>): Row {
  const of = ([name, all]: [string, Values[]]): [string, number[]] => [
    name,
    all.map((round) => round[figure.key] ?? Number.NaN),
  ];
  return { figure, values: new Map([...values].map(of)) };
}

import { isAlias, parseAllDocuments, visit } from 'yaml';
import { UsageError } from '../errors.ts';
import { type Pod, podSchema } from './schema.ts';

/** One pod of a file, and what berth will not do of what the file asks. */
export interface ParsedPod {
  pod: Pod;
  /** Each names a field by its path and says why it has no effect. */
  warnings: string[];
}

/** A pod is a page of text; this bounds what the YAML parser is made to hold. */
const MAX_BYTES = 4 << 20;
const MAX_ALIASES = 100;

/**
 * Reads the pods of a YAML (or JSON) file of one or more documents. Nothing is returned unless every
 * document is a Pod that berth understands, so that a file runs as a whole or not at all.
 *
 * @param source the file's name, put before each problem
 * @throws UsageError that names document, field and what would be right
 */
export function parsePods(text: string, source: string): ParsedPod[] {
  if (text.length > MAX_BYTES) throw new UsageError(`${source}: larger than ${MAX_BYTES >> 20} MiB`);
  const pods: ParsedPod[] = [];
  const documents = parseAllDocuments(text, { uniqueKeys: true });
  for (const [index, document] of (Array.isArray(documents) ? documents : []).entries()) {
    const where = `${source}: document ${index + 1}`;
    const broken = document.errors[0];
    if (broken !== undefined) throw new UsageError(`${where}: ${broken.message.split('\n')[0]}`);
    let aliases = 0;
    visit(document, (_key, node) => {
      if (isAlias(node) && ++aliases > MAX_ALIASES) throw new UsageError(`${where}: too many YAML aliases`);
    });
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    if (value === null || value === undefined) continue;
    pods.push(parsePod(value, where));
  }
  if (pods.length === 0) throw new UsageError(`${source}: holds no Pod`);
  const names = pods.map(({ pod }) => `${pod.metadata.namespace ?? 'default'}/${pod.metadata.name}`);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw new UsageError(`${source}: pod ${twice} is there twice`);
  return pods;
}

/**
 * One document as a pod.
 *
 * @throws UsageError
 */
export function parsePod(value: unknown, where: string): ParsedPod {
  const kind = isObject(value) ? `${String(value.apiVersion)} ${String(value.kind)}` : typeof value;
  if (kind !== 'v1 Pod') {
    throw new UsageError(`${where}: is ${kind}; berth runs documents of apiVersion v1, kind Pod, only`);
  }
  const result = podSchema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new UsageError(`${where}: ${pathText(issue?.path ?? [])}: ${issue?.message ?? 'is wrong'}`);
  }
  const pod = result.data;
  return { pod, warnings: [...droppedFields(value, pod).map(explain), ...unenforced(pod)] };
}

/** What each field of Kubernetes that berth knows and does not do would need. */
const NEEDS: readonly [RegExp, string][] = [
  [
    /\.(livenessProbe|readinessProbe|startupProbe|lifecycle|readinessGates|activeDeadlineSeconds)$/,
    'needs a kubelet',
  ],
  [/\.(terminationMessagePath|terminationMessagePolicy|restartPolicyRules)$/, 'needs a kubelet'],
  [
    /\.(nodeSelector|nodeName|affinity|tolerations|topologySpreadConstraints|schedulerName|schedulingGates)$/,
    'needs a scheduler',
  ],
  [/\.(priority|priorityClassName|preemptionPolicy|overhead)$/, 'needs a scheduler'],
  [
    /\.(serviceAccount|serviceAccountName|automountServiceAccountToken|enableServiceLinks|imagePullSecrets)$/,
    'needs an API server',
  ],
  [/\.(subdomain|setHostnameAsFQDN)$/, 'needs cluster DNS'],
];

function explain(path: string): string {
  const reason = NEEDS.find(([shape]) => shape.test(path))?.[1];
  return `${path} has no effect${reason === undefined ? ': berth does not know it' : `: it ${reason}`}`;
}

/** Understood fields whose meaning rests on something that watches the pod. */
function unenforced(pod: Pod): string[] {
  const warnings: string[] = [];
  const policy = pod.spec.restartPolicy;
  if (policy === 'Always' || policy === 'OnFailure') {
    warnings.push(`spec.restartPolicy ${policy} is not enforced: berth starts each container once`);
  }
  return warnings;
}

/**
 * Paths of the fields of `raw` that the schema stripped. Empty values (`status: {}`,
 * `creationTimestamp: null`) ask for nothing and are not reported.
 */
export function droppedFields(raw: unknown, kept: unknown, path = ''): string[] {
  if (Array.isArray(raw) && Array.isArray(kept)) {
    return raw.flatMap((item, index) => droppedFields(item, kept[index], `${path}[${index}]`));
  }
  if (!isObject(raw) || !isObject(kept)) return [];
  return Object.entries(raw).flatMap(([key, value]) => {
    const below = path === '' ? key : `${path}.${key}`;
    if (key in kept) return droppedFields(value, kept[key], below);
    // Written by the API server about a pod that it holds; says nothing about the pod to run.
    if (isEmpty(value) || below === 'status' || SERVER_METADATA.has(below)) return [];
    return [below];
  });
}

const SERVER_METADATA = new Set(
  ['creationTimestamp', 'resourceVersion', 'generation', 'managedFields', 'selfLink'].map(
    (name) => `metadata.${name}`,
  ),
);

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.keys(value).length === 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((part, at) => (typeof part === 'number' ? `[${part}]` : `${at === 0 ? '' : '.'}${String(part)}`))
    .join('');
}

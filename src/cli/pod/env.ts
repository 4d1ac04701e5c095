import { invalid } from '../../errors.ts';
import { expand } from './expand.ts';
import type { Pod, PodContainer } from './schema.ts';

/** What a pod's fields are replaced with; `podIps` is empty until the pod's network is up. */
export interface PodFacts {
  uid: string;
  nodeName: string;
  /** Addresses of the pod, primary first; with the node's network those of the node. */
  podIps: string[];
  hostIps: string[];
}

/**
 * The environment of a container in order, with `$(NAME)` of earlier variables and pod fields filled in.
 *
 * @param field path of the container, for errors
 * @throws BerthError invalid for sources that only a cluster has
 */
export function environment(
  pod: Pod,
  container: PodContainer,
  facts: PodFacts,
  field: string,
): Map<string, string> {
  if ((container.envFrom ?? []).length > 0) {
    throw invalid(`${field}.envFrom`, 'needs an API server; write the variables in env');
  }
  const values = new Map<string, string>();
  for (const [index, variable] of (container.env ?? []).entries()) {
    const value = variableValue(pod, variable, values, facts, `${field}.env[${index}]`);
    if (value !== undefined) values.set(variable.name, value);
  }
  return values;
}

type EnvVar = NonNullable<PodContainer['env']>[number];

function variableValue(
  pod: Pod,
  variable: EnvVar,
  earlier: ReadonlyMap<string, string>,
  facts: PodFacts,
  field: string,
): string | undefined {
  const from = variable.valueFrom;
  if (!from) return expand(variable.value ?? '', earlier);
  if (variable.value) throw invalid(field, 'must not have both value and valueFrom');
  if (from.fieldRef) return fieldValue(pod, from.fieldRef.fieldPath, facts, `${field}.valueFrom.fieldRef`);
  const reference = from.configMapKeyRef ?? from.secretKeyRef;
  if (reference?.optional === true) return undefined;
  throw invalid(`${field}.valueFrom`, 'only fieldRef works without an API server; write a value');
}

function fieldValue(pod: Pod, fieldPath: string, facts: PodFacts, field: string): string {
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(fieldPath);
  if (keyed !== null) {
    const map = keyed[1] === 'labels' ? pod.metadata.labels : pod.metadata.annotations;
    return map?.[keyed[2] ?? ''] ?? '';
  }
  const fields: Record<string, string> = {
    'metadata.name': pod.metadata.name,
    'metadata.namespace': namespaceOf(pod),
    'metadata.uid': facts.uid,
    'spec.nodeName': facts.nodeName,
    'spec.serviceAccountName': '',
    'status.podIP': facts.podIps[0] ?? '',
    'status.podIPs': facts.podIps.join(','),
    'status.hostIP': facts.hostIps[0] ?? '',
    'status.hostIPs': facts.hostIps.join(','),
  };
  const value = Object.hasOwn(fields, fieldPath) ? fields[fieldPath] : undefined;
  if (value === undefined) {
    throw invalid(`${field}.fieldPath`, `must be one of ${Object.keys(fields).join(', ')}, not ${fieldPath}`);
  }
  return value;
}

/** The pod's namespace, `default` when it names none. */
export function namespaceOf(pod: Pod): string {
  return pod.metadata.namespace ?? 'default';
}

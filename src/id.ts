import { randomBytes } from 'node:crypto';

/** A new sandbox or container id: 64 lowercase hex digits, which is what cAdvisor and the kubelet look for in cgroup names. */
export function newId(): string {
  return randomBytes(32).toString('hex');
}
